"""What remitd sends (``wire.rpc``): prompts, sessions, grants and ledger entries, read once, then immutable.

A field that is missing is empty: an older remitd, or one that has nothing to say of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from remit_tui.fields import (
    RecordError,
    counts_of,
    list_of,
    maybe_of,
    names_of,
    number_of,
    text_of,
    texts_of,
)


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
        if not isinstance(record, dict) or not text_of(record, "id"):
            raise RecordError("a prompt without an id")
        return cls(
            id=text_of(record, "id"),
            state=text_of(record, "state") or "open",
            agent=text_of(record, "agent"),
            session=text_of(record, "session"),
            project=text_of(record, "project"),
            ops=texts_of(record, "ops"),
            path=text_of(record, "path"),
            path2=text_of(record, "path2"),
            pid=int(number_of(record, "pid")),
            exe=text_of(record, "exe"),
            comm=text_of(record, "comm"),
            argv=texts_of(record, "argv"),
            source=text_of(record, "source"),
            count=int(number_of(record, "count")),
            created=number_of(record, "created"),
            holding=int(number_of(record, "holding")),
            held_until=number_of(record, "held_until") or None,
            scopes=tuple(
                Scope(text_of(s, "scope"), text_of(s, "label"), text_of(s, "rule"))
                for s in list_of(record, "scopes")
            ),
            facts=tuple((text_of(f, "label"), text_of(f, "text")) for f in list_of(record, "facts")),
            kind=text_of(record, "kind"),
            parents=names_of(record.get("chain")),
            before=counts_of(record.get("before")),
            purpose=text_of(record, "purpose"),
            confined=record.get("confined") is not False,
            limit=text_of(record, "limit"),
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
        if not isinstance(record, dict) or not text_of(record, "id"):
            raise RecordError("a session without an id")
        return cls(
            id=text_of(record, "id"),
            agent=text_of(record, "agent"),
            state=text_of(record, "state"),
            pid=int(number_of(record, "pid")),
            project=text_of(record, "project"),
            argv=texts_of(record, "argv"),
            started=number_of(record, "started"),
            ended=maybe_of(record, "ended"),
            status=None if record.get("status") is None else int(number_of(record, "status")),
            ask=text_of(record, "ask"),
            net_all=bool(record.get("net_all")),
            waiting=int(number_of(record, "waiting")),
            assurance=str(record.get("assurance") or ""),
            enforced=texts_of(record, "enforced"),
            confined=record.get("confined") is not False,
            parent=text_of(record, "parent"),
        )


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
        if not isinstance(record, dict) or not text_of(record, "id"):
            raise RecordError("a grant without an id")
        return cls(
            id=text_of(record, "id"),
            agent=text_of(record, "agent"),
            session=text_of(record, "session"),
            ops=texts_of(record, "ops"),
            scope=text_of(record, "scope"),
            verdict=text_of(record, "verdict"),
            lasts=str(record.get("for") or ""),
            rule=text_of(record, "rule"),
            created=number_of(record, "created"),
            expires=maybe_of(record, "expires"),
            last_used=maybe_of(record, "last_used"),
            uses=int(number_of(record, "uses")),
            by=text_of(record, "by"),
            suspended=bool(record.get("suspended")),
            marks=names_of(record.get("markers")),
            via=text_of(record, "via"),
            denials=int(number_of(record, "denials")),
            reviewed=maybe_of(record, "reviewed"),
            suffices=text_of(record, "suffices"),
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
        if not isinstance(record, dict) or not number_of(record, "seq"):
            raise RecordError("a row without a number")
        outcome, _, more = text_of(record, "outcome").partition(" ")
        return cls(
            seq=int(number_of(record, "seq")),
            time=number_of(record, "time"),
            actor=text_of(record, "actor"),
            agent=text_of(record, "agent"),
            session=text_of(record, "session"),
            pid=int(number_of(record, "pid")),
            exe=text_of(record, "exe"),
            op=text_of(record, "op"),
            path=text_of(record, "path"),
            path2=text_of(record, "path2"),
            verdict=text_of(record, "verdict"),
            outcome=outcome,
            more=more,
            rule=text_of(record, "rule"),
            prompt=text_of(record, "prompt"),
            note=text_of(record, "note"),
            argv=texts_of(record, "argv"),
        )
