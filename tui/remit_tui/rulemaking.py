"""A rule made of a ledger row: what a person edits is one line, what is saved is a policy file that is read as written.

The line is ``VERDICT OPERATION PATTERN``; the pattern of a program is followed by those of its arguments. The rule goes to a role
that the agent has already: a section of the agent's own would take the roles of the built-in packs from it.
"""

from __future__ import annotations

import shlex
import time

from remit_daemon.wire.escape import escape, unescape
from remit_policy.match import escape as literal
from remit_policy.model import FILE_OPS
from remit_tui.records import Entry

VERDICTS = ("allow", "ask", "deny")
NET_OPS = ("connect", "resolve", "listen")
EXPECTED = "deny read /home/me/x/**, or allow connect pypi.org, with an operation of files, exec, connect, resolve or listen"
_OWN = ("base", "protected")  # roles that everybody has: a rule in these would be everybody's


class RuleError(ValueError):
    """The line is no rule; the text says what would be."""


def line_of(entry: Entry) -> str:
    """Return the rule that ``entry`` suggests, as the line that a person then edits: a denial of just that."""
    resource = literal(entry.path) if entry.op in FILE_OPS or entry.op == "exec" else entry.path
    # A policy file parts arguments at blanks, so a blank inside one is any character.
    arguments = ["".join("?" if c.isspace() else c for c in literal(a)) or "*" for a in entry.argv[1:]]
    words = [escape(a) for a in arguments] if entry.op == "exec" else []
    return " ".join(("deny", entry.op, *map(shlex.quote, (escape(resource), *words))))


def role_for(agent: str, roles: list[str]) -> str:
    """Return which of an agent's ``roles`` a rule for it goes to. Raises RuleError when none is its own."""
    for role in (agent, *(r for r in roles if r not in _OWN)):
        if role in roles:
            return role
    raise RuleError(f"{agent} has no role of its own")


def parse(line: str) -> tuple[str, str, str, list[str]]:
    """Return verdict, operation, pattern and argument patterns of ``line``. Raises RuleError."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    try:
        words = [unescape(word) for word in lexer]
    except ValueError as e:
        quote = "quotation" in str(e)
        raise RuleError(
            "a quotation mark is not closed" if quote else "a backslash is written \\\\"
        ) from None
    if len(words) < 3 or words[0] not in VERDICTS:
        raise RuleError(f"expected {EXPECTED}")
    verdict, op, pattern, *rest = words
    if op not in FILE_OPS and op not in NET_OPS and op != "exec":
        raise RuleError(f"a rule about '{op}' is written by hand, in the policy view")
    if rest and op != "exec":
        raise RuleError("one pattern; quote it when it holds blanks")
    if any(c.isspace() for word in rest for c in word):
        raise RuleError("an argument holds no blank in a policy file; ? is any character")
    return verdict, op, pattern, rest


def document(line: str, role: str, about: str, now: float) -> str:
    """Return the policy file of the rule ``line`` for ``role``; ``about`` (fit to be shown) says where it comes from."""
    verdict, op, pattern, rest = parse(line)
    head = f"# Made in remit tui on {time.strftime('%Y-%m-%d', time.localtime(now))} of {about}\nversion = 1\n\n"
    if op == "exec":
        # As a rule of exec says it: the program, then its arguments in one text.
        text = " ".join(rest) if rest else "**"
        return f"{head}[role.{_key(role)}.exec]\n{_key(pattern)} = {{ {verdict} = [{_toml(text)}] }}\n"
    table = "files" if op in FILE_OPS else "net"
    return f"{head}[role.{_key(role)}.{table}]\n{op} = {{ {verdict} = [{_toml(pattern)}] }}\n"


def _toml(text: str) -> str:
    """Return ``text`` as a basic string of TOML 1.0. Raises RuleError on what no TOML file can hold."""
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise RuleError("a name that is no UTF-8 cannot stand in a policy file; use * for that part")
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain) + '"'


def _key(name: str) -> str:
    plain = name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    return name if plain else _toml(name)
