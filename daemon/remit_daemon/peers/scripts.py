"""Which script an interpreter runs, from its command line: a claim of the process, which may write there what it likes.

Only what can be told for certain from documented options is told (python(1), node(1), bash(1), perl(1), ruby(1), ``deno help run``, ``bun
--help``); an option that we do not know makes the script UNKNOWN rather than guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What an interpreter was told to run."""

    NATIVE = "native"  # no interpreter
    FILE = "script"
    CODE = "code"  # on the command line
    MODULE = "module"
    STDIN = "standard input"  # or a person at a terminal
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class _Syntax:
    code: str  # short options whose value is code
    module: str = ""
    value: str = ""  # short options with a value, attached or next
    attached: str = ""  # short options that take the rest of their word
    flags: str = ""
    long_code: tuple[str, ...] = ()
    long_value: tuple[str, ...] = ()  # those whose value may be the next word
    long_flags: str = "$^"  # of the long options that take none: a pattern
    commands: tuple[str, ...] = ()  # words before the options
    stdin: str = ""  # short options that say: read standard input


_SHELL = _Syntax(
    code="c", value="oO", flags="abefhilmnprtuvxBCDEHPT", stdin="s", long_value=("--rcfile", "--init-file"),
    long_flags="--(login|noprofile|norc|posix|restricted|verbose|noediting)",
)  # fmt: skip
_PYTHON = _Syntax(
    code="c", module="m", value="WX", flags="bBdEiIOPqRsSuvx", long_value=("--check-hash-based-pycs",)
)
_NODE = _Syntax(
    code="ep", value="rC", flags="i", long_code=("--eval", "--print"),
    long_value=("--require", "--import", "--loader", "--experimental-loader", "--conditions", "--title", "--input-type"),
    # Of node's own options the value stands behind "=" or there is none; V8's are the same.
    long_flags="--[a-z0-9-]+",
)  # fmt: skip
_PERL = _Syntax(code="eE", attached="IMmilDFVx0C", flags="acfnpsStTuUvwWX")
_RUBY = _Syntax(code="e", value="rI", attached="xWTKEF0", flags="acdlnpsSUvw", long_flags="--[a-z=-]+")
_SYNTAX = {
    "python": _PYTHON, "pypy": _PYTHON, "node": _NODE, "nodejs": _NODE, "bash": _SHELL, "sh": _SHELL, "dash": _SHELL, "zsh": _SHELL,
    "ksh": _SHELL, "perl": _PERL, "ruby": _RUBY,
    "deno": _Syntax(code="", flags="AEILNRSWqr", long_flags="--[a-z-]+(=.*)?", commands=("run", "serve")),
    "bun": _Syntax(code="ep", long_code=("--eval", "--print"), flags="ib", long_flags="--[a-z-]+(=.*)?", commands=("run",)),
}  # fmt: skip
_NAME = re.compile(r"(python|pypy|nodejs|node|bash|dash|zsh|ksh|sh|perl|ruby|deno|bun)[0-9.]*(-config)?\Z")


def interpreter(path: str) -> str:
    """Return which interpreter the program at ``path`` is by its name, "" for none that we know."""
    found = _NAME.match(path.rpartition("/")[2].removesuffix(" (deleted)"))
    return found[1] if found and not found[2] else ""


def script_of(name: str, argv: Sequence[str]) -> tuple[Kind, str]:
    """Return what ``name``, an interpreter, was told to run, and the file or module (else ""). ``argv`` begins with its own name."""
    syntax = _SYNTAX[name]
    if not argv:
        return Kind.UNKNOWN, ""  # it is in the middle of an exec, or hides its command line
    words = list(argv[1:])
    if syntax.commands and words:
        if words[0] in syntax.commands:
            words.pop(0)
        elif name == "deno":
            return (Kind.CODE if words[0] == "eval" else Kind.UNKNOWN), ""
    while words:
        word = words.pop(0)
        if word == "--":
            break
        if word == "-":
            return Kind.STDIN, ""
        if word.startswith("--"):
            option, _, value = word.partition("=")
            if option in syntax.long_code:
                return Kind.CODE, ""
            if option in syntax.long_value:
                if not value and words:
                    words.pop(0)
            elif not re.fullmatch(syntax.long_flags, option) and not re.fullmatch(syntax.long_flags, word):
                return Kind.UNKNOWN, ""
        elif word.startswith("-") or (word.startswith("+") and syntax is _SHELL):
            found = _short(syntax, word[1:], words)
            if found is not None:
                return found
        else:
            words.insert(0, word)
            break
    if not words:
        return Kind.STDIN, ""
    return Kind.FILE, words[0]


def _short(syntax: _Syntax, letters: str, words: list[str]) -> tuple[Kind, str] | None:
    """Read one word of short options; its values are taken off ``words``. None: the script is further on."""
    code = False
    for at, letter in enumerate(letters):
        rest = letters[at + 1 :]
        if letter in syntax.code:
            if syntax is not _SHELL:
                return Kind.CODE, ""
            code = True  # a shell takes its code from the first word behind all options
        elif letter in syntax.module:
            module = rest or (words[0] if words else "")
            return Kind.MODULE, module
        elif letter in syntax.stdin:
            return Kind.STDIN, ""
        elif letter in syntax.value:
            if (syntax is _SHELL or not rest) and words:
                words.pop(0)
            if syntax is not _SHELL:
                return None
        elif letter in syntax.attached:
            return None
        elif letter not in syntax.flags:
            return Kind.UNKNOWN, ""
    return (Kind.CODE, "") if code else None
