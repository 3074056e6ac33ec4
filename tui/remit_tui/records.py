"""Prompts and sessions as remitd sends them (``wire.rpc``), read once, then immutable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class RecordError(ValueError):
    """remitd sent something that is not what the contract says."""


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError(f"{key} is not text")
    return value


def _texts(record: dict[str, Any], key: str) -> tuple[str, ...]:
    value = record.get(key) or []
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise RecordError(f"{key} is not a list of texts")
    return tuple(value)


def _number(record: dict[str, Any], key: str) -> float:
    value = record.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecordError(f"{key} is not a number")
    return value


def _list(record: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = record.get(key) or []
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise RecordError(f"{key} is not a list of objects")
    return value


@dataclass(frozen=True, slots=True)
class Scope:
    """One offered scope: its pattern, what people call it, and the rule it would become."""

    pattern: str
    label: str
    rule: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One open question. ``held_until`` (seconds since the epoch) is None when remitd does not tell it.

    ``facts`` are (label, text): what else a person should know of a question about a token."""

    id: str
    state: str
    agent: str
    session: str
    project: str
    ops: tuple[str, ...]
    path: str
    path2: str
    pid: int
    exe: str
    comm: str
    argv: tuple[str, ...]
    source: str
    count: int
    created: float
    holding: int
    held_until: float | None
    scopes: tuple[Scope, ...]
    facts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, record: object) -> Prompt:
        """Read one prompt; raises RecordError, naming the field."""
        if not isinstance(record, dict) or not _text(record, "id"):
            raise RecordError("a prompt without an id")
        return cls(
            id=_text(record, "id"),
            state=_text(record, "state") or "open",
            agent=_text(record, "agent"),
            session=_text(record, "session"),
            project=_text(record, "project"),
            ops=_texts(record, "ops"),
            path=_text(record, "path"),
            path2=_text(record, "path2"),
            pid=int(_number(record, "pid")),
            exe=_text(record, "exe"),
            comm=_text(record, "comm"),
            argv=_texts(record, "argv"),
            source=_text(record, "source"),
            count=int(_number(record, "count")),
            created=_number(record, "created"),
            holding=int(_number(record, "holding")),
            held_until=_number(record, "held_until") or None,
            scopes=tuple(
                Scope(_text(s, "scope"), _text(s, "label"), _text(s, "rule"))
                for s in _list(record, "scopes")
            ),
            facts=tuple((_text(f, "label"), _text(f, "text")) for f in _list(record, "facts")),
        )

    @property
    def question(self) -> tuple[object, ...]:
        """What a person decides on; while it is the same, the same question is being asked."""
        return (
            self.agent, self.session, self.project, self.ops, self.path, self.path2,
            self.pid, self.exe, self.comm, self.argv, self.source, self.scopes, self.facts,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Session:
    """One run of an agent, as far as the header needs it."""

    id: str
    agent: str
    state: str

    @classmethod
    def of(cls, record: object) -> Session:
        """Read one session; raises RecordError, naming the field."""
        if not isinstance(record, dict) or not _text(record, "id"):
            raise RecordError("a session without an id")
        return cls(_text(record, "id"), _text(record, "agent"), _text(record, "state"))
