"""Whole calls on Triton kernels, in Triton's interpreter."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from interpreted import FILES, OF_KERNELS, run_in_the_interpreter

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


# Minutes on a machine that does other things too.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", [file for file in FILES if file not in OF_KERNELS])
def test_in_the_interpreter(file: str) -> None:
    run_in_the_interpreter(file)
