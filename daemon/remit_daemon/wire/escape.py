"""Text that came from an agent, made safe to show, and back.

A path or an argument is any bytes, held here as str with surrogateescape. Shown raw it can move the
cursor, reverse the line's direction, or hide characters. ``escape`` writes whatever does not plainly
show as itself in one of these forms, and never shortens:

    \\\\          a backslash
    \\xNN        a control character below U+0080, or, from 80 on, a byte that is no UTF-8
    \\uNNNN      any other character that is invisible, a separator, or turns the text's direction
    \\UNNNNNNNN  the same beyond U+FFFF

What needs escaping is ``str.isprintable`` (Unicode categories Cc Cf Cs Co Cn Zl Zp Zs, the plain space
excepted) and the few blanks and selectors that Unicode counts as letters, marks or symbols.
"""

from __future__ import annotations

_BLANKS = frozenset(
    [
        0x034F,  # combining grapheme joiner
        0x115F, 0x1160, 0x3164, 0xFFA0,  # Hangul fillers
        0x17B4, 0x17B5,  # Khmer inherent vowels
        0x2800,  # braille blank
        *range(0x180B, 0x1810),  # Mongolian selectors
        *range(0xFE00, 0xFE10),  # variation selectors
        *range(0xE0100, 0xE01F0),  # and their supplement
    ]
)  # fmt: skip
_HEX = {"x": 2, "u": 4, "U": 8}


def _one(char: str) -> str:
    code = ord(char)
    if char == "\\":
        return "\\\\"
    if char.isprintable() and code not in _BLANKS:
        return char
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383: an undecodable byte
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def escape(text: str) -> str:
    """Return ``text`` as one line in which every character shows as itself; ``unescape`` undoes it."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_one, text))


def unescape(text: str) -> str:
    """Return what ``escape`` was given.

    Raises ValueError when ``text`` holds a backslash form that ``escape`` does not write.
    """
    if "\\" not in text:
        return text
    out: list[str] = []
    at = 0
    while (slash := text.find("\\", at)) >= 0:
        out.append(text[at:slash])
        kind = text[slash + 1 : slash + 2]
        if kind == "\\":
            out.append(kind)
            at = slash + 2
            continue
        width = _HEX.get(kind)
        at = slash + 2 + (width or 0)
        digits = text[slash + 2 : at]
        if width is None or len(digits) != width or not all(c in "0123456789abcdef" for c in digits):
            raise ValueError(f"no escape of ours at {slash}")
        code = int(digits, 16)
        if code > 0x10FFFF:
            raise ValueError(f"no character at {slash}")
        out.append(chr(code + 0xDC00 if kind == "x" and code >= 0x80 else code))
    out.append(text[at:])
    return "".join(out)
