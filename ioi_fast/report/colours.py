"""The two colour scales of a report and the ink that can be read on them.

A scale is a row of stops from one limit to the other, which the figure knows (HeatMap.limit);
colours between them are mixed linearly in sRGB. Diverging: blue for positive, red for negative, and
the neutral of the page at zero.
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scheme:
    """One colour scheme: stops from zero to the limit for either sign, and the two inks."""

    up: tuple[RGB, ...]
    down: tuple[RGB, ...]
    # Black and white, not near them: one of the two reaches a contrast of 4.5 on any colour.
    dark_ink: RGB = (0, 0, 0)
    light_ink: RGB = (255, 255, 255)

    def diverging(self, share: float) -> RGB:
        """The colour of a value that is `share` (-1 to 1) of the limit."""
        if not -1 <= share <= 1:
            raise ValueError(f"share: expected -1 to 1, got {share}")
        return _between(self.up if share >= 0 else self.down, abs(share))

    def ink(self, background: RGB) -> RGB:
        """The ink with the higher contrast on that background."""
        return max(self.dark_ink, self.light_ink, key=lambda ink: contrast(ink, background))


LIGHT = Scheme(
    up=((244, 244, 242), (166, 200, 226), (74, 138, 190), (22, 76, 134)),
    down=((244, 244, 242), (240, 184, 162), (206, 94, 76), (142, 24, 40)),
)
DARK = Scheme(
    up=((38, 42, 48), (38, 76, 112), (52, 126, 186), (142, 198, 244)),
    down=((38, 42, 48), (104, 48, 46), (190, 84, 68), (250, 172, 146)),
)


def hex_code(colour: RGB) -> str:
    """`#1a2b3c`"""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def contrast(first: RGB, second: RGB) -> float:
    """The contrast ratio of WCAG 2.1, from 1 to 21."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: RGB) -> float:
    """The relative luminance of WCAG 2.1, from 0 to 1."""
    red, green, blue = (_linear(channel / 255) for channel in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def mixed(first: RGB, second: RGB, share: float) -> RGB:
    """The colour `share` (0 to 1) of the way from the first to the second."""
    red, green, blue = (
        round(start + (end - start) * share) for start, end in zip(first, second, strict=True)
    )
    return red, green, blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def _between(stops: tuple[RGB, ...], share: float) -> RGB:
    place = share * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    return mixed(stops[index], stops[index + 1], place - index)
