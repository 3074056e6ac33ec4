"""What came from outside, made fit to be read: escaped by the wire's one function, folded, never shortened.

Only ``clip`` shortens, and it is for overviews: whatever a person decides on goes through ``fold``.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from textual.content import Content

from remit_daemon.wire.escape import escape

_SPACE = "\\x20"


def shown(text: str) -> str:
    """Return ``text`` escaped, with the spaces that an eye cannot count (at an end, or repeated) as ``\\x20``."""
    out = escape(text)
    if " " not in out:
        return out
    last = len(out) - 1
    return "".join(
        _SPACE if c == " " and (i in (0, last) or out[i - 1] == " " or out[i + 1] == " ") else c
        for i, c in enumerate(out)
    )


def command(argv: tuple[str, ...]) -> str:
    """Return an argument list on one line; arguments that are empty or hold blanks or quotes are quoted."""
    return " ".join(_quoted(a) for a in argv)


def _quoted(argument: str) -> str:
    text = escape(argument)
    if text and not any(c in " '\"" for c in text):
        return text
    return "'" + text.replace("'", "\\x27") + "'"


@lru_cache(maxsize=4096)
def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return Content(char).cell_length


def width_of(text: str) -> int:
    """Return how many terminal cells ``text`` (already escaped) takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def fold(text: str, width: int) -> list[str]:
    """Cut ``text`` (already escaped) into lines of at most ``width`` cells; joined again they are ``text``."""
    width = max(width, 2)  # a wide character takes two cells
    if text.isascii():
        return [text[i : i + width] for i in range(0, len(text), width)] or [""]
    lines, start, used = [], 0, 0
    for i, char in enumerate(text):
        cells = _cells(char)
        if used + cells > width:
            lines.append(text[start:i])
            start, used = i, 0
        used += cells
    return [*lines, text[start:]]


def wrap(text: str, width: int) -> list[str]:
    """Cut prose (already escaped) at blanks into lines of at most ``width`` cells; a longer word is folded. Not for names alone: a
    blank at the end of a line cannot be seen."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width_of(longer) <= width:
            lines[-1] = longer
        else:
            lines += fold(word, width)
    return lines if lines[0] else lines[1:] or [""]


def clip(text: str, width: int) -> str:
    """Return ``text`` (already escaped) in at most ``width`` cells, its middle left out. For overviews only."""
    if width_of(text) <= width:
        return text
    if width < 3:
        return "…"[:width]
    head = fold(text, max((width - 1) // 3, 2))[0]
    room, tail = width - 1 - width_of(head), ""
    for char in reversed(text):
        room -= _cells(char)
        if room < 0:
            break
        tail = char + tail
    return f"{head}…{tail}"


def span(seconds: float) -> str:
    """Return a length of time the way a person says it: ``12 s``, ``3 min``, ``2 h``, ``4 d``."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172800:
        return f"{whole // 3600} h"
    return f"{whole // 86400} d"
