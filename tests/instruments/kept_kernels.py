"""The compiled kernels, copied into caches of tests, which so need not compile them again."""

from __future__ import annotations

from pathlib import Path

from ioi_fast.kernels import build, kept_library
from ioi_fast.kernels.cache_folders import cache_roots


def inside() -> tuple[str, str]:
    """The folders below a cache's root in which this machine's kernels are kept."""
    return "kernels", build.build_key(build.find_compiler())


def copy_kernels(root: Path) -> Path:
    """Keeps this machine's kernels below another root; the path of the file."""
    build.load_kernels()
    with kept_library.opened(next(filter(_has_them, cache_roots())), inside()) as folder:
        library = kept_library.read(folder, build.LIBRARY)
    with kept_library.opened(root, inside(), make=True) as folder:
        kept_library.keep(folder, build.LIBRARY, library)
    return root.joinpath(*inside()) / build.LIBRARY


def _has_them(root: Path) -> bool:
    return root.joinpath(*inside()).joinpath(build.LIBRARY).is_file()
