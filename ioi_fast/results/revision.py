"""The commit of the checkout that the package runs from, for provenance."""

from __future__ import annotations

import subprocess
from pathlib import Path


def revision() -> str | None:
    """The git commit of this package's checkout, "+changes" when it is not clean; None if there is
    no git or the package is installed elsewhere.
    """
    here = Path(__file__).resolve().parent
    try:
        # A checkout around an installed package (a virtual environment in it) is not its own.
        subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", "__init__.py"],
            capture_output=True,
            check=True,
            timeout=10,
        )
        found = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+changes"],
            capture_output=True,
            check=True,
            timeout=10,
            text=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
