"""ioi_fast: what would GPT-2 have said if this head had seen something else?"""
