"""What the broker is told (events) and what it wants done (commands).

Commands are to be carried out in their order, and none before those that store or record have been made durable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from remit_daemon.broker.records import Account, Grant, Prompt, Session
from remit_policy.model import Snapshot

# -- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """A supervisor said hello: ``session`` is new, or known and taken up again. ``base`` is its policy without grants."""

    session: Session
    base: Snapshot


@dataclass(frozen=True, slots=True)
class Lost:
    """A session's supervisor, or its ``gateway``, is not connected (any more), and what it held is not held by us. It
    says again what it still holds when it comes back."""

    session: str
    gateway: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A session is over: with the agent's exit ``status``, or with None because its supervisor died."""

    session: str
    status: int | None


@dataclass(frozen=True, slots=True)
class Ask:
    """A held operation, as in ``wire.control``. ``costs`` are what it counts against limits; ``short``: the policy allows it,
    and the point has no lease to pay with."""

    session: str
    seq: int
    ops: tuple[str, ...]
    path: str
    path2: str = ""
    pid: int = 0
    proc: str = ""
    exe: str = ""
    comm: str = ""
    argv: tuple[str, ...] = ()
    source: str = ""
    count: int = 1
    costs: tuple[str, ...] = ()
    short: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What an enforcement point has used and returned of a limit's leases, in all; whether it ``want``s one."""

    session: str
    point: str
    limit: str
    used: int
    returned: int
    want: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """A hold ended without its answer: the process is ``gone``, or the hold time ``expired``."""

    session: str
    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's answer. ``duration`` is once, session, always or a number of seconds; ``scope`` "" is the narrowest."""

    prompt: str
    verdict: str
    duration: str | int
    scope: str = ""
    message: str = ""
    by: str = "human"


@dataclass(frozen=True, slots=True)
class Look:
    """``who`` (a connection) has begun or ceased to look at a prompt."""

    prompt: str
    who: int
    looking: bool


@dataclass(frozen=True, slots=True)
class LookerGone:
    """``who`` looks at nothing any more."""

    who: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """Take back one grant, an agent's, or all."""

    id: str = ""
    agent: str = ""
    all: bool = False


@dataclass(frozen=True, slots=True)
class Steer:
    """``stop``, ``pause`` or ``resume`` a session."""

    session: str
    action: str


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """New policies of live sessions, without grants."""

    bases: dict[str, Snapshot]


@dataclass(frozen=True, slots=True)
class Used:
    """The ledger saw ``n`` acts decided by grant ``id``, the last at ``at``."""

    id: str
    n: int
    at: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Started
    | Lost
    | Ended
    | Ask
    | Report
    | Cancel
    | Answer
    | Look
    | LookerGone
    | Revoke
    | Steer
    | PolicyChanged
    | Used
    | Tick
)

# -- commands -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``frame`` to the session's enforcement points as ``wire.control`` lays down, if they are connected."""

    session: str
    frame: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Store:
    """Keep this record, in place of an older one of its id."""

    record: Session | Prompt | Grant | Account


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget a stored record: ``kind`` is prompt, grant or account."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class Record:
    """Append a row to the ledger; ``sync`` before anything that follows."""

    entry: dict[str, Any]
    sync: bool = False


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell whoever watches."""

    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EndTree:
    """Kill every process of this session by its mark."""

    session: str
    tag: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The result for whoever caused the event."""

    result: dict[str, Any] = field(default_factory=dict)


Command = Send | Store | Drop | Record | Notify | EndTree | Reply
