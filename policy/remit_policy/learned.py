"""The policy file that learning writes: a person reads it, changes it, and learning adds to it. Pure text.

    [role.learned-NAME.files]
    read = { allow = [
        "~/notes/*.md",  # 14x, 5 files, as ~/notes/a.md; session s1a2b, 2026-05-01
    ] }

A file that says more than this (a deny, a rate, another role) is the person's by now, and is not written again.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass

from remit_policy.model import FILE_OPS

SECTIONS = ("files", "net")
_HEAD = "# What you allowed after learning (`remit learn`). It is yours to change; learning adds to it while it has this form."
_LINE = re.compile(r'^    ("(?:[^"\\]|\\.)*"), {2}# (.*)$')
_BARE = re.compile(r"^[A-Za-z0-9_-]+$")


class NotOurs(ValueError):
    """The file has another form than the one that is written here; the text says where."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One allowed ``pattern`` of ``op``, with what is to be said of it."""

    op: str
    pattern: str
    note: str

    @property
    def section(self) -> str:
        """The table of the role that it stands in."""
        return "files" if self.op in FILE_OPS else "net"


def quote(text: str) -> str:
    """Return ``text`` as a TOML basic string (TOML 1.0, String). Raises UnicodeEncodeError for what is no Unicode."""
    text.encode()
    out = []
    for c in text:
        if c in '"\\':
            out.append("\\" + c)
        elif c.isprintable():
            out.append(c)
        else:
            out.append(f"\\u{ord(c):04X}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08X}")
    return '"' + "".join(out) + '"'


def written(pattern: str, home: str) -> str:
    """Return the absolute ``pattern`` as a policy file has it: the home as ``~``, and no variable that is none."""
    plain = not set(home) & set("\\*?{}[],$")  # else it cannot be told from a pattern's own characters
    head, rest = ("~", pattern[len(home) :]) if plain and pattern.startswith(home + "/") else ("", pattern)
    return head + rest.replace("$", "\\$")


def _key(name: str) -> str:
    return name if _BARE.match(name) else quote(name)


def role_of(agent: str) -> str:
    """Return the name of the role that holds what ``agent`` was allowed."""
    return f"learned-{agent}"


def render(agent: str, roles: Iterable[str], entries: Iterable[Entry]) -> str:
    """Return the whole file: ``agent`` has ``roles`` and, in a role of its own, ``entries``; of equals the last counts."""
    role = role_of(agent)
    kept = {(e.op, e.pattern): e for e in entries}.values()
    named = ", ".join(quote(r) for r in dict.fromkeys([*roles, role]))
    lines = [_HEAD, "version = 1", "", f"[agent.{_key(agent)}]", f"roles = [{named}]", ""]
    lines += [f"[role.{_key(role)}]", 'description = "allowed after learning"']
    for section in SECTIONS:
        mine = [e for e in kept if e.section == section]
        if mine:
            lines += ["", f"[role.{_key(role)}.{section}]"]
        for op in dict.fromkeys(e.op for e in mine):
            lines.append(f"{op} = {{ allow = [")
            lines += [f"    {quote(e.pattern)},  # {_plain(e.note)}" for e in mine if e.op == op]
            lines.append("] }")
    return "\n".join(lines) + "\n"


def _plain(note: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in note)


def read(text: str, agent: str) -> tuple[list[str], list[Entry]]:
    """Return the roles (its own left out) and the entries of a file that ``render`` wrote. Raises NotOurs."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise NotOurs(f"it is no TOML: {e}") from None
    role = role_of(agent)
    table = raw.get("role", {}).get(role)
    section = raw.get("agent", {}).get(agent)
    if (
        set(raw) != {"version", "agent", "role"}
        or set(raw["agent"]) != {agent}
        or set(raw["role"]) != {role}
    ):
        raise NotOurs(f"it says more than what '{agent}' may")
    if not isinstance(section, dict) or set(section) != {"roles"} or not isinstance(table, dict):
        raise NotOurs(f"[agent.{agent}] says more than roles")
    notes = {}
    for line in text.split("\n"):
        if found := _LINE.match(line):
            notes[tomllib.loads(f"x = {found[1]}")["x"]] = found[2]
    entries = []
    for name, ops in table.items():
        if name == "description":
            continue
        if name not in SECTIONS or not isinstance(ops, dict):
            raise NotOurs(f"it has a table '{name}'")
        for op, rule in ops.items():
            if not isinstance(rule, dict) or set(rule) != {"allow"}:
                raise NotOurs(f"'{op}' says more than allow")
            for pattern in rule["allow"]:
                if pattern not in notes:
                    raise NotOurs(f"'{pattern}' was written by hand")
                entries.append(Entry(op, pattern, notes[pattern]))
    if render(agent, section["roles"], entries) != text:
        raise NotOurs("it was changed by hand")
    return [r for r in section["roles"] if r != role], entries
