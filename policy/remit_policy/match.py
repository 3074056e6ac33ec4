"""Patterns: what they may look like, what they match, and how specific a match is.

A pattern is absolute or floating (``**/x``). It is cut at ``/`` into components, each of which is literal
text, a glob (``*`` any run of characters, ``?`` one; neither crosses ``/``) or ``**`` (any number of whole
components, none included, so that ``x/**`` matches ``x``). Braces ``{a,b}`` are alternatives, expanded
before anything else; ``\\`` takes the next character literally. Variables are expanded elsewhere.

No regular expression is ever made of a pattern. A glob is matched by placing each of its pieces as far
left as it goes, so the time is bounded by name length times pattern length.

*Specificity* follows snapd (``interfaces/prompting/patterns/variant.go``): two patterns that match one
path are compared from the left, and at the first difference literal > ``?`` > ``/`` > end > ``/**`` in
the middle > ``/**`` at the end > ``*``; a longer literal and a shorter run win. Where a pattern fits in
several ways, the most specific way counts. The order of components is the trie's (``compile.py``); the
order within one component is ``Glob.key``'s.
"""

from __future__ import annotations

MAX_EXPANSIONS = 1000  # alternatives of one pattern: what one line of a policy may cost
MAX_BRACE_DEPTH = 16
MAX_PATTERN = 8192  # characters: twice PATH_MAX leaves room for alternatives
MAX_COMPONENTS = 256

DSTAR = None  # the component ``**``

_LITERAL, _ANY, _END, _STAR = 4, 3, 2, 1  # ranks within a component


class PatternError(ValueError):
    """A pattern that means nothing. ``expected`` says what would be right."""

    def __init__(self, message: str, expected: str) -> None:
        super().__init__(message)
        self.expected = expected


class Glob:
    """A component with wildcards. Equal texts are equal globs.

    ``prefix`` and ``suffix`` are the literal ends, used to index many globs of one place.
    """

    __slots__ = ("pieces", "prefix", "suffix", "text")

    def __init__(self, text: str, pieces: list[tuple[str | None, ...]]) -> None:
        self.text = text
        self.pieces = pieces  # what stands between the stars; None in a piece is ``?``
        self.prefix = _head(pieces[0])
        self.suffix = _head(pieces[-1][::-1])[::-1]

    def key(self, name: str) -> tuple[int, ...] | None:
        """Return how specifically this glob matches ``name`` (greater is more), or None: it does not."""
        pieces, size = self.pieces, len(name)
        first, last = pieces[0], pieces[-1]
        if not _at(first, name, 0):
            return None
        out = _ranks(first)
        at = len(first)
        if len(pieces) == 1:
            return (*out, _END) if at == size else None
        for piece in pieces[1:-1]:
            found = _find(piece, name, at)
            if found < 0:
                return None
            out += [_STAR, at - found]
            out += _ranks(piece)
            at = found + len(piece)
        end = size - len(last)
        if end < at or not _at(last, name, end):
            return None
        out += [_STAR, at - end]
        out += _ranks(last)
        out.append(_END)
        return tuple(out)


def _head(piece: tuple[str | None, ...]) -> str:
    out = ""
    for c in piece:
        if c is None:
            break
        out += c
    return out


def _ranks(piece: tuple[str | None, ...]) -> list[int]:
    return [_ANY if c is None else _LITERAL for c in piece]


def _at(piece: tuple[str | None, ...], name: str, at: int) -> bool:
    if at + len(piece) > len(name):
        return False
    for c in piece:
        if c is not None and c != name[at]:
            return False
        at += 1
    return True


def _find(piece: tuple[str | None, ...], name: str, at: int) -> int:
    if None not in piece:
        return name.find("".join(c for c in piece if c is not None), at)
    while at + len(piece) <= len(name):
        if _at(piece, name, at):
            return at
        at += 1
    return -1


def escape(text: str) -> str:
    """Return the pattern that matches exactly ``text``."""
    return "".join("\\" + c if c in "\\*?{}[]," else c for c in text)


def expand(pattern: str, limit: int = MAX_EXPANSIONS) -> list[str]:
    """Return the alternatives that the braces of ``pattern`` stand for, in order, without repeats.

    Escapes are kept. Raises PatternError for unbalanced braces and for more than ``limit`` alternatives.
    """
    if len(pattern) > MAX_PATTERN:
        raise PatternError("the pattern is too long", f"at most {MAX_PATTERN} characters")
    if "{" not in pattern and "}" not in pattern:
        return [pattern]
    out, at = _sequence(pattern, 0, 0, limit)
    if at != len(pattern):
        raise PatternError("a '}' without its '{'", "balanced braces, or \\} for the character itself")
    return list(dict.fromkeys(out))


def _sequence(text: str, at: int, depth: int, limit: int) -> tuple[list[str], int]:
    """Expand from ``at`` up to a ``,`` or ``}`` of this depth; return the alternatives and where it ended."""
    if depth > MAX_BRACE_DEPTH:
        raise PatternError("braces are nested too deeply", f"at most {MAX_BRACE_DEPTH} levels")
    out = [""]
    start = at
    while at < len(text):
        c = text[at]
        if c == "\\":
            at += 2
            continue
        if c == "}" or (c == "," and depth):
            break
        if c != "{":
            at += 1
            continue
        plain = text[start:at]
        choices: list[str] = []
        while True:
            some, at = _sequence(text, at + 1, depth + 1, limit)
            choices += some
            if at >= len(text):
                raise PatternError(
                    "a '{' without its '}'", "balanced braces, or \\{ for the character itself"
                )
            if text[at] == "}":
                break
        at += 1
        if len(out) * len(choices) > limit:
            raise PatternError("the braces stand for too many patterns", f"at most {limit}")
        out = [head + plain + choice for head in out for choice in choices]
        start = at
    at = min(at, len(text))
    plain = text[start:at]
    return ([head + plain for head in out] if plain else out), at


def component(text: str) -> str | Glob | None:
    """Return what one component of a pattern is: literal text, a Glob, or DSTAR.

    Raises PatternError when it is none of these.
    """
    if text == "**":
        return DSTAR
    if "\\" not in text and "*" not in text and "?" not in text and "[" not in text and "]" not in text:
        return text
    pieces: list[list[str | None]] = [[]]
    wild = False
    at = 0
    while at < len(text):
        c = text[at]
        at += 1
        if c == "\\":
            if at >= len(text):
                raise PatternError("a '\\' at the end escapes nothing", "\\\\ for the character itself")
            pieces[-1].append(text[at])
            at += 1
        elif c == "*":
            if text[at : at + 1] == "*":
                raise PatternError("'**' beside other characters", "** as a whole component, as in /a/**/b")
            wild = True
            pieces.append([])
        elif c == "?":
            wild = True
            if len(pieces) > 1 and not pieces[-1]:
                pieces[-2].append(None)  # ``*?`` is ``?*``: what is certain comes first
            else:
                pieces[-1].append(None)
        elif c in "[]":
            raise PatternError(f"'{c}' is not a wildcard here", f"\\{c} for the character, or braces")
        else:
            pieces[-1].append(c)
    if not wild:
        return "".join(c for c in pieces[0] if c is not None)
    joined = [tuple(p) for p in pieces]
    # ``*?*`` left an empty piece between two stars
    inner = [p for p in joined[1:-1] if p]
    kept = [joined[0], *inner, joined[-1]] if len(joined) > 1 else joined
    return Glob(_canonical(kept), kept)


def _canonical(pieces: list[tuple[str | None, ...]]) -> str:
    return "*".join("".join("?" if c is None else escape(c) for c in p) for p in pieces)


def components(pattern: str) -> list[str | Glob | None]:
    """Return the components of one pattern without braces or variables.

    Raises PatternError for one that is relative, or that no normalised path could match.
    """
    if pattern.startswith("**/") or pattern == "**":
        pattern = "/" + pattern
    if not pattern.startswith("/"):
        raise PatternError(
            "the pattern is relative", "an absolute path, ~, $PROJECT or another variable, or **/x"
        )
    if pattern == "/":
        return []
    out: list[str | Glob | None] = []
    for text in pattern[1:].split("/"):
        if text == "":
            raise PatternError("an empty component", "no // and no / at the end; x/** is all that x holds")
        if text in (".", ".."):
            raise PatternError(f"'{text}' in a pattern", "the path as it is once . and .. are resolved")
        if "\0" in text:
            raise PatternError("a null character in a pattern", "a path")
        part = component(text)
        if part is DSTAR and out and out[-1] is DSTAR:
            continue
        out.append(part)
    if len(out) > MAX_COMPONENTS:
        raise PatternError("the pattern has too many components", f"at most {MAX_COMPONENTS}")
    return out


def parse(pattern: str) -> list[list[str | Glob | None]]:
    """Return the components of every alternative of ``pattern``, not to be changed. Raises PatternError.

    One pattern stands in the rules of several operations, and in every snapshot of one person.
    """
    known = _parsed.get(pattern)
    if known is None:
        if len(_parsed) >= _MAX_PARSED:
            _parsed.clear()
        known = _parsed[pattern] = [components(p) for p in expand(pattern)]
    return known


_parsed: dict[str, list[list[str | Glob | None]]] = {}
_MAX_PARSED = 4096
