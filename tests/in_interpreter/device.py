"""Where the kernels of these tests run: in Triton's interpreter, or on the GPU that is named in
IOI_FAST_TEST_DEVICE, such as cuda (tests/test_on_gpu.py)."""

from __future__ import annotations

import os

DEVICE = os.environ.get("IOI_FAST_TEST_DEVICE", "cpu")
ON_GPU = DEVICE != "cpu"
