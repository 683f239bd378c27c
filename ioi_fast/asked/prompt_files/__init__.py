"""Files of prompts: read whole or refused with the place and the reason."""

from __future__ import annotations

from ioi_fast.asked.prompt_files.loading import load_prompts

__all__ = ["load_prompts"]
