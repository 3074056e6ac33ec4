"""What the broker is told (events) and what it wants done (commands).

Commands are to be carried out in their order, and none before those that store or record have been made durable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from remit_daemon.broker.records import Account, Fact, Grant, Parent, Prompt, Session, Standing
from remit_policy.model import Snapshot


class Refused(Exception):
    """The event is not possible; nothing has changed. ``code`` is a JSON-RPC error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


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
    """A session is over: with the agent's exit ``status``, or with None because its supervisor, or its client, ended."""

    session: str
    status: int | None


@dataclass(frozen=True, slots=True)
class Ask:
    """A held operation, as in ``wire.control``. ``costs`` are what it counts against limits; ``short``: the policy allows it,
    and the point has no lease to pay with. ``purpose`` is the agent's own word for why."""

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
    chain: tuple[Parent, ...] = ()
    purpose: str = ""


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
class AskConsent:
    """A program asks for a token: ``text`` is the resource in its canonical form, the rest as in ``records.Consent``.

    Inside a session ``session`` is set, and its policy in force counts; outside ``client`` is, and ``base``, the policy for
    ``agent``. The reply is {prompt} where a person is asked, else {verdict, grant, message}.
    """

    request: str
    agent: str
    text: str
    audience: str
    scopes: tuple[str, ...]
    details: str = "[]"
    session: str = ""
    client: str = ""
    base: Snapshot | None = None
    facts: tuple[Fact, ...] = ()
    pid: int = 0
    proc: str = ""
    exe: str = ""
    comm: str = ""


@dataclass(frozen=True, slots=True)
class Redeem:
    """Whoever asked fetches the token of the request with digest ``request``. The reply is {verdict, grant, message}."""

    request: str
    session: str = ""
    client: str = ""
    base: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class ClientGone:
    """``client`` is no more: what it asked is missed, what it was given ends."""

    client: str


@dataclass(frozen=True, slots=True)
class Intent:
    """What a session's agent says that it is about to do, and why: shown as the purpose of the next questions about
    ``resources`` (none: about anything)."""

    session: str
    resources: tuple[str, ...]
    purpose: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """A hold ended without its answer: the process is ``gone``, or the hold time ``expired``."""

    session: str
    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's answer. ``duration`` is once, session, always or a number of seconds; ``scope`` "" is the narrowest;
    ``via`` is the surface that it was given on."""

    prompt: str
    verdict: str
    duration: str | int
    scope: str = ""
    message: str = ""
    by: str = "human"
    via: str = ""


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
class Narrow:
    """Have grant ``id`` cover ``scope`` alone, which lies within what it covers."""

    id: str
    scope: str


@dataclass(frozen=True, slots=True)
class Extend:
    """Have grant ``id`` end ``seconds`` from now, later than it would."""

    id: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Keep:
    """A person has looked at grant ``id`` and it stays; if it was suspended, it is in force again."""

    id: str


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A person went through the grants; ``what`` says in words what came of it."""

    what: str


@dataclass(frozen=True, slots=True)
class Quiet:
    """For ``seconds`` every question is denied or held (``mode`` deny, hold) and nobody is called; ``off`` ends it."""

    mode: str
    seconds: int = 0


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
class Withhold:
    """The program of ``agent`` has changed: what was granted it before, for longer than a session, is not used until ``Carry``. Or it is
    again (``on`` false), because policy does not ask for that any more."""

    agent: str
    on: bool = True


@dataclass(frozen=True, slots=True)
class Carry:
    """A person's word on the change of a program at ``since``: ``keep`` what was granted before, or take it back."""

    agent: str
    since: float
    keep: bool


@dataclass(frozen=True, slots=True)
class Used:
    """The ledger saw ``n`` acts decided by grant ``id``, ``denied`` of them refused, the last at ``at``."""

    id: str
    n: int
    at: float
    denied: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Started
    | Lost
    | Ended
    | Ask
    | Report
    | AskConsent
    | Redeem
    | ClientGone
    | Intent
    | Cancel
    | Answer
    | Look
    | LookerGone
    | Revoke
    | Narrow
    | Extend
    | Keep
    | Reviewed
    | Quiet
    | Steer
    | PolicyChanged
    | Withhold
    | Carry
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

    record: Session | Prompt | Grant | Account | Standing


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


def ordered(commands: list[Command]) -> list[Command]:
    """Put the durable first, then snapshots, then the rest; each kind keeps its order."""

    def rank(c: Command) -> int:
        if isinstance(c, (Store, Drop, Record)):
            return 0
        return 1 if isinstance(c, Send) and c.frame["type"] == "snapshot" else 2

    return sorted(commands, key=rank)
