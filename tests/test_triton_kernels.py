"""The Triton kernels' meaning, in Triton's interpreter."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from interpreted import OF_KERNELS, run_in_the_interpreter, with_fast_tests, with_slow_tests

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


# Minutes on a machine that does other things too.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", with_fast_tests(OF_KERNELS))
def test_in_the_interpreter(file: str) -> None:
    run_in_the_interpreter(file)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", with_slow_tests(OF_KERNELS))
def test_what_takes_long_in_the_interpreter(file: str) -> None:
    run_in_the_interpreter(file, "slow")
