"""What the broker remembers: sessions, prompts, scopes, grants. Immutable; a change is a new record.

Times are seconds since the epoch. ``to_json`` and ``of_json`` carry a record through the store.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from remit_daemon.broker.states import PromptState, SessionState

ONCE, SESSION, ALWAYS = "once", "session", "always"
OF = " of "  # between the names of a chain; the name of a sub-agent has no blank
TOKEN = "token"  # noqa: S105 - the operation of a question, and of a grant, about a token: no policy has it
PROCESS = "process:"  # before the identity of a client that is a process


@dataclass(frozen=True, slots=True)
class Session:
    """One run of an agent. ``hello`` is what its supervisor said, kept so that its policy can be built again.

    A sub-session has the id of the session that delegated as ``parent``, the same supervisor (``pid``, ``identity``), a mark of its own as
    ``tag``, and the whole chain as its agent's name: ``reviewer of claude``. Grants are so kept for the chain, never for the name
    alone, which the delegating agent chose.
    A program that merely came to us has one too: ``pid`` and ``identity`` are then its own, and there is no ``tag``.
    """

    id: str
    agent: str
    pid: int
    identity: str
    tag: int
    project: str
    argv: tuple[str, ...]
    started: float
    ask: str = "prompt"
    net_all: bool = False
    assurance: str = "L3"
    enforced: tuple[str, ...] = ()
    state: SessionState = SessionState.RUNNING
    ended: float | None = None
    status: int | None = None
    hello: dict[str, Any] = field(default_factory=dict)
    parent: str = ""

    @property
    def chain(self) -> tuple[str, ...]:
        """Who acts, then on whose behalf, up to the agent that the person started."""
        return tuple(self.agent.split(OF)) if self.parent else (self.agent,)

    @property
    def presenter(self) -> str:
        """What the session's tokens are bound to: its supervisor, which makes its connections, and for a sub-session itself in it."""
        return f"{self.identity}:{self.id}" if self.parent else self.identity

    @property
    def live(self) -> bool:
        return self.state is not SessionState.ENDED

    @property
    def confined(self) -> bool:
        """Whether remit started it and holds it: what others are told is bookkeeping, not a boundary."""
        return self.tag != 0


@dataclass(frozen=True, slots=True)
class Scope:
    """One offer: ``pattern`` is what the rule would cover, ``label`` says it in words."""

    pattern: str
    label: str


@dataclass(frozen=True, slots=True)
class Parent:
    """A process above the one that asks: shown to a person, told by numbers that may have been others' since."""

    pid: int
    comm: str
    exe: str


@dataclass(frozen=True, slots=True)
class Before:
    """How often the same was asked before, and how that ended."""

    allowed: int = 0
    denied: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """How a prompt was settled: by whom (``human``, ``policy``, a prompt's or grant's id), with what rule."""

    verdict: str
    duration: str
    scope: str
    rule: str
    by: str
    at: float
    message: str = ""
    via: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """One line beside a question: ``label`` is ours, ``text`` may come from outside and is shown escaped."""

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Consent:
    """What a question about a token is about, beside its resource.

    ``client`` is who asks outside sessions (``process:IDENTITY``, or a name of what vouches for it, as in ``oauth:CLIENT_ID``), "" for a session. ``requests``
    are the SHA-256 digests, in hexadecimal, of the requests that wait for the answer; each is redeemed once. ``details``
    are the ``authorization_details`` as JSON.
    """

    client: str
    audience: str
    scopes: tuple[str, ...]
    details: str
    requests: tuple[str, ...]
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question to the person. ``deadline`` is when it is missed; while somebody looks at it, ``remaining``
    holds what was left and the clock stands. ``pass_until`` is until when a once-answer serves a retry. ``chain`` are the
    processes above the asking one, nearest first; ``kind`` is that of the file, "" where it is none. ``costs`` are what each
    of its operations counts against limits; ``limit`` is the account that was spent, where the policy itself allows it. ``purpose``
    is the agent's claim, the first that it made."""

    id: str
    session: str
    agent: str
    project: str
    ops: tuple[str, ...]
    path: str
    path2: str
    pid: int
    proc: str
    exe: str
    comm: str
    argv: tuple[str, ...]
    source: str
    count: int
    created: float
    deadline: float
    state: PromptState = PromptState.OPEN
    remaining: float | None = None
    expired: bool = False
    answer: Settled | None = None
    pass_until: float | None = None
    pass_used: bool = False
    scopes: tuple[Scope, ...] = ()
    chain: tuple[Parent, ...] = ()
    kind: str = ""
    before: Before = Before()
    consent: Consent | None = None
    costs: tuple[tuple[str, int], ...] = ()
    limit: str = ""
    purpose: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path, self.path2) if self.path2 else (self.path,)


@dataclass(frozen=True, slots=True)
class Stated:
    """An agent's word on what it is about to do (``resources``; none: anything), good for questions ``until`` then."""

    resources: tuple[str, ...]
    purpose: str
    until: float


@dataclass(frozen=True, slots=True)
class Grant:
    """A remembered answer. ``session`` empty: for every session of ``agent``. ``duration`` is as answered.

    ``patterns`` are what its rules cover (two for a rename's exact pair); ``argv`` as in a policy rule. ``via`` is the
    surface that it was given on, ``denials`` how many of its uses were refusals. ``reviewed`` is when a person last
    looked at it and kept it, ``narrowed`` when its scope became what it is. With a ``client`` (see ``Consent``) it is for that one alone, and for no
    session.
    """

    id: str
    agent: str
    session: str
    ops: tuple[str, ...]
    patterns: tuple[str, ...]
    verdict: str
    duration: str
    created: float
    expires: float | None
    argv: tuple[str, ...] | None = None
    by: str = "human"
    prompt: str = ""
    uses: int = 0
    last_used: float | None = None
    suspended: bool = False
    via: str = ""
    denials: int = 0
    reviewed: float | None = None
    narrowed: float | None = None
    client: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds for all sessions: the quiet mode ("", deny, hold) and until when, and when a review was last called for."""

    id: str = "standing"
    quiet: str = ""
    quiet_until: float = 0.0
    reminded: float = 0.0


@dataclass(frozen=True, slots=True)
class Lease:
    """What one enforcement point was ``given`` of an account, says it ``used`` and ``returned``: totals. ``closed`` is when its
    session ended; what was left then counts as used until the point says otherwise."""

    given: int
    used: int
    returned: int
    closed: float | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """How much of a limit an owner (an agent's name, or a session's id) has spent: ``level`` at the time ``at``, and ``leases``
    by point. ``id`` is owner, tab, ``limit``."""

    id: str
    owner: str
    limit: str
    kind: str
    amount: int
    seconds: int
    level: float
    at: float
    leases: dict[str, Lease] = field(default_factory=dict)
    warned: bool = False
    source: str = ""


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"cannot store {type(value).__name__}")


def to_json(record: Session | Prompt | Grant | Account | Standing) -> str:
    """Return ``record`` as ASCII JSON; undecodable bytes in paths survive as lone surrogates' escapes."""
    return json.dumps(asdict(record), default=_plain, separators=(",", ":"))


def session_of(text: str) -> Session:
    """Read a session written by ``to_json``. Raises ValueError, KeyError or TypeError when it is none."""
    raw = json.loads(text)
    raw["state"] = SessionState(raw["state"])
    for name in ("argv", "enforced"):
        raw[name] = tuple(raw[name])
    return Session(**raw)


def prompt_of(text: str) -> Prompt:
    """Read a prompt written by ``to_json``. Raises ValueError, KeyError or TypeError when it is none."""
    raw = json.loads(text)
    raw["state"] = PromptState(raw["state"])
    raw["scopes"] = tuple(Scope(**s) for s in raw["scopes"])
    raw["chain"] = tuple(Parent(**p) for p in raw.get("chain", ()))
    raw["before"] = Before(**raw.get("before", {}))
    raw["answer"] = Settled(**raw["answer"]) if raw["answer"] else None
    for name in ("ops", "argv"):
        raw[name] = tuple(raw[name])
    raw["costs"] = tuple((str(k), int(n)) for k, n in raw.get("costs", ()))
    if about := raw.get("consent"):
        facts = tuple(Fact(**f) for f in about["facts"])
        lists = {name: tuple(about[name]) for name in ("scopes", "requests")}
        raw["consent"] = Consent(**about | lists | {"facts": facts})
    return Prompt(**raw)


def grant_of(text: str) -> Grant:
    """Read a grant written by ``to_json``. Raises ValueError, KeyError or TypeError when it is none."""
    raw = json.loads(text)
    for name in ("ops", "patterns"):
        raw[name] = tuple(raw[name])
    raw["argv"] = None if raw["argv"] is None else tuple(raw["argv"])
    return Grant(**raw)


def account_of(text: str) -> Account:
    """Read an account written by ``to_json``. Raises ValueError, KeyError or TypeError when it is none."""
    raw = json.loads(text)
    raw["leases"] = {point: Lease(**lease) for point, lease in raw["leases"].items()}
    return Account(**raw)


def standing_of(text: str) -> Standing:
    """Read what ``to_json`` wrote of a Standing. Raises ValueError or TypeError when it is none."""
    return Standing(**json.loads(text))
