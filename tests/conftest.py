"""Test modules share what stands beside them: comparisons, oracles, checkpoint writers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
