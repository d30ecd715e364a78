"""Text is told from its ground in light and in dark, as WCAG 2 counts it. No browser is needed for that."""

from __future__ import annotations

import re

import pytest

from app.main import CONSOLE

LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3, of text that is not large

LIGHT, DARK = re.findall(r":root \{(.+?)\}", (CONSOLE / "style.css").read_text(), re.DOTALL)[:2]
SCHEMES = {"light": LIGHT, "dark": DARK}
PAIRS = [
    *[(text, ground) for text in ("ink", "soft", "accent", "fault") for ground in ("surface", "ground")],
    *[("accent-ink", "accent"), ("fault", "fault-soft"), ("ink", "fault-soft")],
    *[(outcome, f"{outcome}-soft") for outcome in ("match", "doubtful", "unknown")],
]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_is_told_from_its_ground(scheme: str, text: str, ground: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", SCHEMES[scheme]))
    lighter, darker = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)

    assert (lighter + 0.05) / (darker + 0.05) >= LEAST_CONTRAST


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
