"""What remitd sends (``wire.rpc``): prompts, sessions, grants and ledger entries, read once, then immutable.

A field that is missing is empty: an older remitd, or one that has nothing to say of it.
"""

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


def _maybe(record: dict[str, Any], key: str) -> float | None:
    return None if record.get(key) is None else _number(record, key)


def _names(value: object) -> tuple[str, ...]:
    """Return a list of names, or of processes (``{pid, comm, exe}``) as what they are called and run."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RecordError("not a list of names")
    out = []
    for item in value:
        if isinstance(item, dict):
            program = _text(item, "exe") or _text(item, "comm") or "unknown"
            out.append(f"{program} ({int(_number(item, 'pid'))})")
        elif isinstance(item, str):
            out.append(item)
        else:
            raise RecordError("not a list of names")
    return tuple(out)


def _counts(value: object) -> tuple[tuple[str, int], ...]:
    """Return the numbers of an object that are not 0."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise RecordError("not an object of numbers")
    return tuple((str(name), int(_number(value, name))) for name in value if _number(value, name))


@dataclass(frozen=True, slots=True)
class Scope:
    """One offered scope: its pattern, what people call it, and the rule it would become."""

    pattern: str
    label: str
    rule: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One open question. ``held_until`` (seconds since the epoch) is None when remitd does not tell it.

    ``facts`` are (label, text): what else a person should know of a question about a token. ``parents`` are the processes
    above, nearest first; ``before`` says how the same was answered before, by words and numbers; ``purpose`` is the agent's claim.
    ``limit`` says which limit is spent, where that is why it asks.
    """

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
    kind: str = ""
    parents: tuple[str, ...] = ()
    before: tuple[tuple[str, int], ...] = ()
    purpose: str = ""
    confined: bool = True
    limit: str = ""

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
            kind=_text(record, "kind"),
            parents=_names(record.get("chain")),
            before=_counts(record.get("before")),
            purpose=_text(record, "purpose"),
            confined=record.get("confined") is not False,
            limit=_text(record, "limit"),
        )

    @property
    def about_token(self) -> bool:
        """Whether a token is asked for: its one scope is what was asked."""
        return self.ops == ("token",)

    @property
    def question(self) -> tuple[object, ...]:
        """What a person decides on; while it is the same, the same question is being asked."""
        return (
            self.agent, self.session, self.project, self.ops, self.path, self.path2,
            self.pid, self.exe, self.comm, self.argv, self.source, self.scopes, self.kind, self.parents, self.purpose, self.facts,
            self.confined, bool(self.limit),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Session:
    """One run of an agent. Times are seconds since the epoch; ``ended`` is None while it runs; ``parent`` started it, for a sub-session."""

    id: str
    agent: str
    state: str
    pid: int = 0
    project: str = ""
    argv: tuple[str, ...] = ()
    started: float = 0.0
    ended: float | None = None
    status: int | None = None
    ask: str = ""
    net_all: bool = False
    waiting: int = 0
    assurance: str = ""
    enforced: tuple[str, ...] = ()
    confined: bool = True
    parent: str = ""

    @classmethod
    def of(cls, record: object) -> Session:
        """Read one session; raises RecordError, naming the field."""
        if not isinstance(record, dict) or not _text(record, "id"):
            raise RecordError("a session without an id")
        return cls(
            id=_text(record, "id"),
            agent=_text(record, "agent"),
            state=_text(record, "state"),
            pid=int(_number(record, "pid")),
            project=_text(record, "project"),
            argv=_texts(record, "argv"),
            started=_number(record, "started"),
            ended=_maybe(record, "ended"),
            status=None if record.get("status") is None else int(_number(record, "status")),
            ask=_text(record, "ask"),
            net_all=bool(record.get("net_all")),
            waiting=int(_number(record, "waiting")),
            assurance=str(record.get("assurance") or ""),
            enforced=_texts(record, "enforced"),
            confined=record.get("confined") is not False,
            parent=_text(record, "parent"),
        )


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
        return cls(_text(quiet, "mode"), _number(quiet, "until"), int(_number(review, "due")))


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
            _text(record, "agent"),
            _text(record, "session"),
            bool(record.get("spent")),
            _text(record, "text"),
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
            _text(record, "digest"), _text(record, "path"), _text(record, "how"), _number(record, "first_seen"),
            _number(record, "last_seen"), _text(record, "interpreter_digest"), _text(record, "publisher"),
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
        if not isinstance(record, dict) or not _text(record, "name"):
            raise RecordError("an agent without a name")
        adopted = record.get("adopted") or []
        if not isinstance(adopted, list) or not all(isinstance(pid, int) for pid in adopted):
            raise RecordError("adopted is not a list of processes")
        return cls(
            _text(record, "name"), _maybe(record, "changed"), bool(record.get("pending")),
            tuple(Program.of(p) for p in _list(record, "programs")), tuple(adopted),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grant:
    """One remembered answer. ``session`` is "" when it holds in all; ``marks`` are what remitd says to look at."""

    id: str
    agent: str
    session: str
    ops: tuple[str, ...]
    scope: str
    verdict: str
    lasts: str
    rule: str
    created: float
    expires: float | None
    last_used: float | None
    uses: int
    by: str
    suspended: bool
    marks: tuple[str, ...]
    via: str = ""
    denials: int = 0
    reviewed: float | None = None
    suffices: str = ""
    due: bool = False
    withheld: bool = False

    @classmethod
    def of(cls, record: object) -> Grant:
        """Read one grant; raises RecordError, naming the field."""
        if not isinstance(record, dict) or not _text(record, "id"):
            raise RecordError("a grant without an id")
        return cls(
            id=_text(record, "id"),
            agent=_text(record, "agent"),
            session=_text(record, "session"),
            ops=_texts(record, "ops"),
            scope=_text(record, "scope"),
            verdict=_text(record, "verdict"),
            lasts=str(record.get("for") or ""),
            rule=_text(record, "rule"),
            created=_number(record, "created"),
            expires=_maybe(record, "expires"),
            last_used=_maybe(record, "last_used"),
            uses=int(_number(record, "uses")),
            by=_text(record, "by"),
            suspended=bool(record.get("suspended")),
            marks=_names(record.get("markers")),
            via=_text(record, "via"),
            denials=int(_number(record, "denials")),
            reviewed=_maybe(record, "reviewed"),
            suffices=_text(record, "suffices"),
            due=bool(record.get("due")),
            withheld=bool(record.get("withheld")),
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger. ``outcome`` is its first word, ``more`` what the row says after it."""

    seq: int
    time: float
    actor: str
    agent: str
    session: str
    pid: int
    exe: str
    op: str
    path: str
    path2: str
    verdict: str
    outcome: str
    more: str
    rule: str
    prompt: str
    note: str
    argv: tuple[str, ...]

    @classmethod
    def of(cls, record: object) -> Entry:
        """Read one row; raises RecordError, naming the field."""
        if not isinstance(record, dict) or not _number(record, "seq"):
            raise RecordError("a row without a number")
        outcome, _, more = _text(record, "outcome").partition(" ")
        return cls(
            seq=int(_number(record, "seq")),
            time=_number(record, "time"),
            actor=_text(record, "actor"),
            agent=_text(record, "agent"),
            session=_text(record, "session"),
            pid=int(_number(record, "pid")),
            exe=_text(record, "exe"),
            op=_text(record, "op"),
            path=_text(record, "path"),
            path2=_text(record, "path2"),
            verdict=_text(record, "verdict"),
            outcome=outcome,
            more=more,
            rule=_text(record, "rule"),
            prompt=_text(record, "prompt"),
            note=_text(record, "note"),
            argv=_texts(record, "argv"),
        )
