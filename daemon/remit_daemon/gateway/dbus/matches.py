"""Match rules: what an agent wants to hear, read as the bus reads it and said again in one form only.

What is sent on to the bus is ``Rule.text``, made anew from what was understood: no quoting, doubled key or unknown
key can mean something else there. Rules are narrowed to signals: others match only for who eavesdrops, and nobody may.

Source: D-Bus specification, "Match Rules"; quoting as in libdbus ``bus/signals.c`` (apostrophes quote, outside of them
a backslash before an apostrophe stands for it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remit_daemon.gateway.dbus.wire import (
    is_bus_name,
    is_interface,
    is_member,
    is_object_path,
    is_well_known,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RULE = 1024  # characters, as libdbus has it
MAX_ARG = 63  # the highest argument that a rule may name (specification)


class BadRule(Exception):
    """The text is no match rule that may be given."""


class Eavesdropping(BadRule):
    """The rule asks for messages to others."""


class Rule:
    """One match rule. ``keys`` are as in the text, without type and eavesdrop."""

    __slots__ = ("keys", "sender", "text")

    def __init__(self, keys: dict[str, str]) -> None:
        self.keys = keys
        self.sender = keys.get("sender", "")
        self.text = ",".join(["type='signal'", *(f"{k}={_quote(v)}" for k, v in sorted(keys.items()))])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def fits(
        self, names: frozenset[str], interface: str, member: str, path: str, arguments: Sequence[str]
    ) -> bool:
        """Say whether a broadcast with string ``arguments`` of the sender with these ``names`` matches."""
        for key, value in self.keys.items():
            if key == "sender":
                if value not in names:
                    return False
            elif key == "interface":
                if value != interface:
                    return False
            elif key == "member":
                if value != member:
                    return False
            elif key == "path":
                if value != path:
                    return False
            elif key == "path_namespace":
                if value != "/" and path != value and not path.startswith(value + "/"):
                    return False
            elif key == "destination":
                return False  # broadcasts have none
            elif not _argument_fits(key, value, arguments):
                return False
        return True


def _argument_fits(key: str, value: str, arguments: Sequence[str]) -> bool:
    number, kind = _argument(key)
    if number >= len(arguments):
        return False
    said = arguments[number]
    if kind == "namespace":
        return said == value or said.startswith(value + ".")
    if kind == "path":
        return said == value or (value[-1:] == "/" and said.startswith(value)) or (
            said[-1:] == "/" and value.startswith(said)
        )  # fmt: skip
    return said == value


def _argument(key: str) -> tuple[int, str]:
    """Return number and kind ("", path, namespace) of the key ``arg…``. Raises BadRule."""
    rest = key[3:]
    digits = rest[:2] if rest[:2].isdigit() else rest[:1]
    kind = rest[len(digits) :]
    if (
        not (digits.isascii() and digits.isdigit())
        or (len(digits) > 1 and digits[0] == "0")
        or int(digits) > MAX_ARG
    ):
        raise BadRule(f"no such key: {key}")
    if kind not in ("", "path", "namespace") or (kind == "namespace" and digits != "0"):
        raise BadRule(f"no such key: {key}")
    return int(digits), kind


def parse(text: str) -> Rule:
    """Return the rule. Raises BadRule, Eavesdropping."""
    if len(text) > MAX_RULE:
        raise BadRule("longer than 1024 characters")
    keys: dict[str, str] = {}
    for key, value in _pairs(text):
        if key in keys:
            raise BadRule(f"{key} twice")
        keys[key] = value
    if keys.pop("eavesdrop", "false") != "false":
        raise Eavesdropping("eavesdropping")
    if keys.pop("type", "signal") != "signal":
        raise Eavesdropping("messages that are no signals go to one receiver")
    for key, value in keys.items():
        check = _CHECKS.get(key)
        if check is None:
            if key[:3] != "arg":
                raise BadRule(f"no such key: {key}")
            if _argument(key)[1] == "namespace" and not (is_well_known(value) or is_member(value)):
                raise BadRule(f"{key} is no name")
        elif not check(value):
            raise BadRule(f"{key} is not well-formed")
    if "path" in keys and "path_namespace" in keys:
        raise BadRule("path and path_namespace")
    return Rule(keys)


_CHECKS = {
    "sender": is_bus_name,
    "destination": is_bus_name,
    "interface": is_interface,
    "member": is_member,
    "path": is_object_path,
    "path_namespace": is_object_path,
}


def _pairs(text: str) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    at = 0
    while True:
        while at < len(text) and text[at] in " \t\n\r,":
            at += 1
        if at >= len(text):
            return out
        equals = text.find("=", at)
        if equals < 0:
            raise BadRule("a key without value")
        key = text[at:equals].strip(" \t\n\r")
        if not key or not all(c.isascii() and (c.isalnum() or c == "_") for c in key):
            raise BadRule("no key")
        value, at = _value(text, equals + 1)
        out.append((key, value))


def _value(text: str, at: int) -> tuple[str, int]:
    """Return the value that begins at ``at`` and the offset behind it."""
    out: list[str] = []
    quoted = False
    while at < len(text):
        c = text[at]
        at += 1
        if c == "'":
            quoted = not quoted
        elif quoted:
            out.append(c)
        elif c == ",":
            return "".join(out), at
        elif c == "\\" and text[at : at + 1] == "'":
            out.append("'")
            at += 1
        else:
            out.append(c)
    if quoted:
        raise BadRule("an open quote")
    return "".join(out), at


def _quote(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
