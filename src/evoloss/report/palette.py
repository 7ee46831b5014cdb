"""The colours of the report: variables of the page, in light and dark; files get the light ones.

The series are those of Okabe and Ito ("Color universal design", 2008), which readers who are
colour-blind tell apart; the dark variants are the same hues, lighter.
"""

from __future__ import annotations

LIGHT = {
    "ink": "#1b1f24",
    "muted": "#5d6670",
    "grid": "#d9dde2",
    "paper": "#fdfdfc",
    "found": "#0072b2",
    "usual": "#d55e00",
    "third": "#009e73",
    "fourth": "#c0508f",
    "fifth": "#b98500",
    "sixth": "#6a5acd",
    "seventh": "#8a6f5c",
    "eighth": "#2a8fa8",
}

DARK = {
    "ink": "#e8eaed",
    "muted": "#a3abb5",
    "grid": "#3a4048",
    "paper": "#1c2025",
    "found": "#5cb8f5",
    "usual": "#ff8f4d",
    "third": "#3fd0a4",
    "fourth": "#ec93c4",
    "fifth": "#edc24a",
    "sixth": "#aea3ff",
    "seventh": "#c9ab94",
    "eighth": "#6fd3ea",
}

INK, MUTED, GRID, PAPER = (LIGHT[name] for name in ("ink", "muted", "grid", "paper"))
FOUND, USUAL = LIGHT["found"], LIGHT["usual"]
SERIES = tuple(
    LIGHT[name] for name in ("found", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
)
"""One colour for each compared method; the usual loss keeps its own."""


def series(index: int) -> str:
    """The colour of the method of that number; they start over after the seventh."""
    return SERIES[index % len(SERIES)]


def variable(colour: str) -> str:
    """The page's name for a colour, which differs between light and dark; others as they are."""
    return _VARIABLES.get(colour, colour)


_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
