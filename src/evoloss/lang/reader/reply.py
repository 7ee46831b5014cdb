"""Finds the pieces of Python in a raw reply: in answer blocks, fences and prose.

Nothing is moved: what does not count becomes blank, so that lines keep the reply's numbers.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from itertools import pairwise

_OPEN, _CLOSE = re.compile(r"<answer>", re.IGNORECASE), re.compile(r"</answer>", re.IGNORECASE)
_THINKING = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THOUGHT = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_CONTROL = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|</?think(?:ing)?>")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)
_DEFINITION = re.compile(r"(?:async\s+)?def\s+(\w+)|@")
_NAMED = re.compile(r"(?:async\s+)?(?:def|class)\s+(\w+)|(\w+)\s*(?::[^=\n]*)?=(?!=)")
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
# A comment, a triple-quoted text (perhaps without its end), a text of one line, or a bracket.
_MARK = re.compile(
    r"#[^\n]*"
    r'|(?P<open>"""|\'\'\')(?:(?!(?P=open))[\s\S])*(?P<end>(?P=open))?'
    r'|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\''
    r"|[()\[\]{}]"
)


@dataclass(frozen=True)
class Piece:
    """A statement at the top level, or prose; name: what it defines; line: its first."""

    text: str
    line: int
    name: str | None


def pieces(reply: str) -> list[Piece]:
    """The top-level pieces of what counts in a reply, in order."""
    found = []
    first, at = 1, 0
    for start, end in _answers(reply):
        first, at = first + reply.count("\n", at, start), start
        text = _FENCE.sub("", _CONTROL.sub("", reply[start:end]))
        found += _split(textwrap.dedent(text.expandtabs(4)), first)
    return found


def _answers(reply: str) -> list[tuple[int, int]]:
    """Where the answer blocks are; everything after the thoughts if there are none.

    Of a reply that was cut off while it was thinking, nothing counts.
    """
    thoughts = [match.end() for match in _THOUGHT.finditer(reply)]
    after = thoughts[-1] if thoughts else 0
    opened = [match.end() for match in _OPEN.finditer(reply, after)]
    if not opened:
        return [] if _THINKING.search(reply, after) else [(after, len(reply))]
    limits = [*opened[1:], len(reply)]
    found = []
    for start, limit in zip(opened, limits, strict=True):
        closed = _CLOSE.search(reply, start, limit)
        found.append((start, closed.start() if closed else limit))
    return found


def _split(text: str, first: int) -> list[Piece]:
    """Cuts a text before every line that begins a statement at the left margin.

    A definition always begins a piece, whatever is left open before it: one that was cut off does
    not take the next along.
    """
    lines = text.split("\n")
    cuts = [
        number
        for number, line in enumerate(lines)
        if number and _DEFINITION.match(line) and not lines[number - 1].startswith("@")
    ]
    found = []
    for start, end in pairwise([0, *cuts, len(lines)]):
        found += _section(lines[start:end], first + start)
    return found


def _section(lines: list[str], first: int) -> list[Piece]:
    """The pieces of a definition and of what follows it until the next."""
    inside = _continued("\n".join(lines))
    starts = [
        number
        for number, line in enumerate(lines)
        if line.strip() and line[0] not in " \t)]}#" and number not in inside
        and not (number and lines[number - 1].startswith("@"))
    ]  # fmt: skip
    return [
        Piece("\n".join(lines[start:end]).rstrip(), first + start, _name(lines[start:end]))
        for start, end in pairwise([*starts, len(lines)])
    ]


def _continued(text: str) -> set[int]:
    """The lines that begin within brackets or within a triple-quoted text."""
    inside: set[int] = set()
    depth, line, at = 0, 0, 0
    for match in _MARK.finditer(text):
        newlines = text.count("\n", at, match.start())
        if depth > 0:
            inside.update(range(line + 1, line + newlines + 1))
        line, at = line + newlines, match.end()
        within = match.group().count("\n")
        if match.group("open"):
            inside.update(range(line + 1, line + within + 1))
        line += within
        depth = max(0, depth + _BRACKETS.get(match.group(), 0))
    if depth > 0:
        inside.update(range(line + 1, text.count("\n") + 1))
    return inside


def _name(lines: list[str]) -> str | None:
    for line in lines:
        if not line.startswith("@"):
            match = _NAMED.match(line)
            return (match.group(1) or match.group(2)) if match else None
    return None
