"""What remitd sends (``wire.rpc``) of what stands beyond one prompt or session: quiet, limits, and agents by name with their programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from remit_tui.fields import RecordError, list_of, maybe_of, number_of, text_of


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands for all sessions. ``quiet`` is "", hold or deny, and ends at ``until`` (s since the epoch); ``due`` grants want a look."""

    quiet: str = ""
    until: float = 0.0
    due: int = 0

    @classmethod
    def of(cls, status: object) -> Standing:
        """Read it of remitd's ``status``; raises RecordError, naming the field."""
        if not isinstance(status, dict):
            raise RecordError("a status that is none")
        quiet, review = status.get("quiet") or {}, status.get("review") or {}
        if not isinstance(quiet, dict) or not isinstance(review, dict):
            raise RecordError("quiet or review is not an object")
        return cls(text_of(quiet, "mode"), number_of(quiet, "until"), int(number_of(review, "due")))


NOTHING = Standing()


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of an agent, or of one ``session`` of it; ``text`` says how much of it is spent, in words."""

    agent: str
    session: str
    spent: bool
    text: str

    @classmethod
    def of(cls, record: object) -> Limit:
        """Read one limit; raises RecordError, naming the field."""
        if not isinstance(record, dict):
            raise RecordError("a limit that is none")
        return cls(
            text_of(record, "agent"),
            text_of(record, "session"),
            bool(record.get("spent")),
            text_of(record, "text"),
        )


@dataclass(frozen=True, slots=True)
class Program:
    """A program that an agent was seen to run. Times are s since the epoch; ``publisher`` is who signed or packaged it."""

    digest: str
    path: str
    how: str
    first_seen: float
    last_seen: float
    interpreter: str
    publisher: str

    @classmethod
    def of(cls, record: dict[str, Any]) -> Program:
        """Read one program; raises RecordError, naming the field."""
        return cls(
            text_of(record, "digest"), text_of(record, "path"), text_of(record, "how"), number_of(record, "first_seen"),
            number_of(record, "last_seen"), text_of(record, "interpreter_digest"), text_of(record, "publisher"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Known:
    """An agent as remitd knows it by name, its latest program first. ``pending``: its program changed, and grants wait for a word on it."""

    name: str
    changed: float | None
    pending: bool
    programs: tuple[Program, ...]
    adopted: tuple[int, ...]

    @classmethod
    def of(cls, record: object) -> Known:
        """Read one agent; raises RecordError, naming the field."""
        if not isinstance(record, dict) or not text_of(record, "name"):
            raise RecordError("an agent without a name")
        adopted = record.get("adopted") or []
        if not isinstance(adopted, list) or not all(isinstance(pid, int) for pid in adopted):
            raise RecordError("adopted is not a list of processes")
        return cls(
            text_of(record, "name"), maybe_of(record, "changed"), bool(record.get("pending")),
            tuple(Program.of(p) for p in list_of(record, "programs")), tuple(adopted),
        )  # fmt: skip
