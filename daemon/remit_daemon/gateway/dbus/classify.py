"""What is to be done with a message: classified here, done in ``serve``. No side effects.

From the agent:
    call to the bus       by the table DRIVER; what is not in it is refused, whatever newer buses can do
    call to a name        `call NAME interface.member /path [argument…]`
    call to :unique       as to any of the names that it owns at this moment; `call :unique …` when it owns none
    signal                `emit NAME interface.member /path` for the strictest of the names that the agent owns (its unique
                          name when it owns none); one to a single receiver also needs a receiver that the agent may know
    reply                 passes if it answers a call that was delivered, once
To the agent:
    reply                 passes if it answers a call that the agent made, once
    signal                passes if the sender may be seen, or calls of that interface at that object are allowed; one to
                          the agent alone also when its sender answered it before
    call                  passes to a name that the agent owns; to its unique name if it owns any or may see the sender

**One program, several names.** A call reaches a process, not a name: gnome-shell answers for org.gnome.Shell what is sent
to org.freedesktop.Notifications. So a rule about another name that the same program owns counts too, if it is stricter and the
interface is at least as near to that name (in common leading elements) as to the name that was addressed. An
interface asked through Properties counts as the interface. That a name has no rule at all takes nothing away.

**No interface.** The receiver would choose one: such a call passes only where every call to the name is allowed.

**Hiding is not denying.** A name that policy denies to `see` does not exist: the answer is what a bus without it would say.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from remit_daemon.gateway.dbus import matches
from remit_daemon.gateway.dbus.rights import HIDDEN, SHOWN
from remit_daemon.gateway.dbus.wire import CALL, NO_AUTO_START, SIGNAL, is_bus_name, is_well_known, leading
from remit_policy.model import ALLOW, ASK, DENY
from remit_policy.resources import SYSTEM, bus_resource

if TYPE_CHECKING:
    from remit_daemon.gateway.dbus.names import Names
    from remit_daemon.gateway.dbus.rights import Rights
    from remit_daemon.gateway.dbus.wire import Message
    from remit_policy.model import Decision

BUS = "org.freedesktop.DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"
MAX_SHOWN = 8192  # characters of a call's resource; what is longer could not be shown to a person
_E = "org.freedesktop.DBus.Error."
ACCESS_DENIED, SERVICE_UNKNOWN, NO_OWNER = _E + "AccessDenied", _E + "ServiceUnknown", _E + "NameHasNoOwner"
LIMITS, INVALID, NOT_FOUND = _E + "LimitsExceeded", _E + "MatchRuleInvalid", _E + "MatchRuleNotFound"


class Do(Enum):
    """What to do with a message."""

    FORWARD = "pass it on"
    PERMIT = "get a permit for op and resource, then pass it on"
    LIST = "pass it on, and take out of the answer what may not be seen"
    LISTEN = "add the match rule"
    UNLISTEN = "remove the match rule"
    REPLY = "pass it on if it answers a call"
    ANSWER = "answer it: with error and text, or with body"
    REFUSE = "record a refusal with text as its reason, and answer it with AccessDenied"
    DROP = "do nothing"


class Act:
    """A classified message.

    ``op`` and ``resource`` are what is decided or refused. ``hidden`` is the error (or body) with which a refusal is to
    look as if there were no such name, ``said`` what is said of the resource to an agent that may not know its name.
    ``plain`` says that every message with this header is classified alike, until
    names or policy change.
    """

    __slots__ = (
        "body", "do", "error", "hidden", "note", "op", "plain", "resource", "rule", "said", "signature", "text",
    )  # fmt: skip

    def __init__(
        self,
        do: Do,
        op: str = "",
        resource: str = "",
        *,
        plain: bool = False,
        note: str = "",
        error: str = "",
        text: str = "",
        signature: str = "",
        body: int = 0,
        hidden: Act | None = None,
        said: str = "",
        rule: matches.Rule | None = None,
    ) -> None:
        self.do = do
        self.op = op
        self.resource = resource
        self.plain = plain
        self.note = note
        self.error = error
        self.text = text
        self.signature = signature
        self.body = body
        self.hidden = hidden
        self.said = said
        self.rule = rule


# What only looks at a program that runs: where no rule speaks of it, who may know the program may do it.
LOOKING = frozenset(
    {
        ("org.freedesktop.DBus.Introspectable", "Introspect"),
        ("org.freedesktop.DBus.Peer", "Ping"),
        ("org.freedesktop.DBus.Peer", "GetMachineId"),
    }
)
_PASS = Act(Do.FORWARD, plain=True)
_REPLY = Act(Do.REPLY)
_DROP = Act(Do.DROP, plain=True)
_LIST = Act(Do.LIST, plain=True)

# What the bus itself may be asked. Table: (interface, member) -> how it is treated.
_FREE, _LISTING, _ABOUT, _HAS, _LISTEN, _UNLISTEN, _OWN, _RELEASE, _START = range(9)
DRIVER = {
    (BUS, "Hello"): _FREE,
    (BUS, "GetId"): _FREE,
    (BUS, "AddMatch"): _LISTEN,
    (BUS, "RemoveMatch"): _UNLISTEN,
    (BUS, "RequestName"): _OWN,
    (BUS, "ReleaseName"): _RELEASE,
    (BUS, "ListNames"): _LISTING,
    (BUS, "ListActivatableNames"): _LISTING,
    (BUS, "NameHasOwner"): _HAS,
    (BUS, "GetNameOwner"): _ABOUT,
    (BUS, "ListQueuedOwners"): _ABOUT,
    (BUS, "StartServiceByName"): _START,
    (BUS, "GetConnectionUnixUser"): _ABOUT,
    (BUS, "GetConnectionUnixProcessID"): _ABOUT,
    (BUS, "GetConnectionCredentials"): _ABOUT,
    ("org.freedesktop.DBus.Peer", "Ping"): _FREE,
    ("org.freedesktop.DBus.Peer", "GetMachineId"): _FREE,
    ("org.freedesktop.DBus.Introspectable", "Introspect"): _FREE,
    (PROPERTIES, "Get"): _FREE,
    (PROPERTIES, "GetAll"): _FREE,
}


def outgoing(message: Message, names: Names, rights: Rights, me: str) -> Act:
    """Classify what the agent, whose unique name is ``me`` ("" before Hello), sends. Raises Malformed."""
    head = message.head
    if head.type == CALL:
        if head.dest == BUS:
            return _driver(message, names, rights, me)
        if not me:
            return Act(Do.REFUSE, "call", _resource(rights, message), text="a message before Hello")
        return _call(message, names, rights, me)
    if head.type == SIGNAL:
        return _emission(message, names, rights, me)
    return _REPLY


def _resource(rights: Rights, message: Message, name: str = "") -> str:
    head = message.head
    return bus_resource(
        rights.system, name or head.dest or BUS, f"{head.interface or '*'}.{head.member}", head.path
    )


# -- calls -----------------------------------------------------------------------------------------


def _call(message: Message, names: Names, rights: Rights, me: str) -> Act:
    head = message.head
    dest = head.dest
    if not dest:
        return Act(Do.REFUSE, "call", _resource(rights, message), text="a call to nobody")
    unique = dest[:1] == ":"
    owner = dest if unique else names.owner(dest)
    if owner == me:
        return _PASS
    owned = names.owned(owner) if owner else frozenset()
    bases = (sorted(owned) or [dest]) if unique else [dest]
    hidden = _nobody(dest, message.flags) if _is_hidden(dest, names, rights) else None
    if not head.interface:
        return _without_interface(message, rights, bases[0], owned.union(bases), hidden)
    judge = _Judge(message, rights, owned)
    found = min((judge.judge(base) for base in bases), key=lambda f: f[0].verdict)
    decision, resource, note = found
    if unique and bases != [dest]:
        note = f"{note}; by {dest}" if note else f"by {dest}"
    name = resource.partition(" ")[0].removeprefix(SYSTEM)
    said = _resource(rights, message) if name != dest and rights.shown(name) != SHOWN else ""
    if len(resource) > MAX_SHOWN:
        return Act(
            Do.REFUSE, "call", resource[:MAX_SHOWN] + "…", text="its arguments are too long to be shown", hidden=hidden
        )  # fmt: skip
    if (
        decision.verdict == ASK
        and decision.rule is None
        and owner
        and (head.interface, head.member) in LOOKING
        and may_know(dest, names, rights, me)
    ):
        return _PASS
    if hidden is not None and decision.verdict == ASK:
        return Act(Do.REFUSE, "call", resource, text="a name that may not be seen", hidden=hidden)
    # Not all that this depends on makes the classifier forget: whom the agent met does not.
    plain = judge.plain and hidden is None and (head.interface, head.member) not in LOOKING
    return Act(Do.PERMIT, "call", resource, plain=plain, note=note, hidden=hidden, said=said)


class _Judge:
    """Judges one call as if to each of several names; ``plain`` as long as no argument was needed."""

    def __init__(self, message: Message, rights: Rights, owned: frozenset[str]) -> None:
        head = message.head
        self._message = message
        self._rights = rights
        self._owned = owned
        self._member = f"{head.interface}.{head.member}"
        self._arguments: tuple[str, ...] | None = None
        self.plain = True
        self._interface = head.interface
        if head.interface == PROPERTIES and len(owned) > 1:
            self.plain = False
            self._interface = (self._read() or ("",))[0]

    def _read(self) -> tuple[str, ...]:
        if self._arguments is None:
            self._arguments = leading(self._message)
        return self._arguments

    def _decide(self, name: str) -> tuple[Decision, str]:
        decision, resource, alike = self._rights.call(
            name, self._member, self._message.head.path, self._read
        )
        self.plain = self.plain and alike
        return decision, resource

    def judge(self, base: str) -> tuple[Decision, str, str]:
        """Return decision, deciding resource and a note for the call to ``base``."""
        decision, resource = self._decide(base)
        note = ""
        near = _nearness(base, self._interface)
        for other in sorted(self._owned):
            if other == base or decision.verdict == DENY or _nearness(other, self._interface) < near:
                continue
            theirs, their_resource = self._decide(other)
            if theirs.rule is not None and theirs.verdict > decision.verdict:
                decision, resource = theirs, their_resource
                note = f"{base} is the same program"
        return decision, resource, note


def _nearness(name: str, interface: str) -> int:
    """Return how many leading elements two dotted names have in common."""
    count = 0
    for a, b in zip(name.split("."), interface.split("."), strict=False):
        if a != b:
            break
        count += 1
    return count


def _without_interface(
    message: Message, rights: Rights, base: str, names: frozenset[str], hidden: Act | None
) -> Act:
    resource = _resource(rights, message, base)
    if all(rights.every_call(n) for n in names):
        return Act(Do.PERMIT, "call", resource, plain=hidden is None, hidden=hidden)
    text = "a call that names no interface, to a name of which not every call is allowed"
    return Act(Do.REFUSE, "call", resource, text=text, hidden=hidden)


def _is_hidden(name: str, names: Names, rights: Rights) -> bool:
    """Say whether ``name`` is to look as if it were not there."""
    if name[:1] != ":":
        return rights.shown(name) == HIDDEN
    if names.met(name):
        return False
    owned = names.owned(name)
    return bool(owned) and all(rights.shown(n) == HIDDEN for n in owned)


def may_know(name: str, names: Names, rights: Rights, me: str) -> bool:
    """Say whether the agent may know that ``name``, well-known or unique, is there."""
    if name in (BUS, me) or (me and names.owner(name) == me):
        return True
    if name[:1] != ":":
        return rights.shown(name) == SHOWN
    owned = names.owned(name)
    return names.met(name) or any(rights.shown(n) == SHOWN for n in owned) or rights.shown(name) == SHOWN


# -- emissions -------------------------------------------------------------------------------------


def _emission(message: Message, names: Names, rights: Rights, me: str) -> Act:
    head = message.head
    if not me:
        return _DROP
    mine = sorted(names.owned(me)) or [me]
    member = f"{head.interface}.{head.member}"
    resource, worst = "", -1
    for name in mine:
        one = bus_resource(rights.system, name, member, head.path)
        verdict = rights.decide("emit", one).verdict
        if verdict > worst:
            resource, worst = one, verdict
    if head.interface == BUS:
        return Act(Do.REFUSE, "emit", resource, text="a signal that only the bus itself sends")
    if head.dest and not may_know(head.dest, names, rights, me):
        return Act(Do.DROP)
    note = f"to {head.dest}" if head.dest else ""
    return Act(Do.PERMIT, "emit", resource, plain=not head.dest, note=note)


# -- the bus itself --------------------------------------------------------------------------------


def _driver(message: Message, names: Names, rights: Rights, me: str) -> Act:
    head = message.head
    how = DRIVER.get((head.interface or BUS, head.member))
    if how == _FREE:
        return _PASS
    if how == _LISTING:
        return _LIST
    if how is None:
        return Act(
            Do.REFUSE, "call", _resource(rights, message), text="nothing that an agent may ask of the bus"
        )
    arguments = leading(message, 1)
    if not arguments:
        return Act(Do.FORWARD)  # the bus says what is wrong
    name = arguments[0]
    if how in (_LISTEN, _UNLISTEN):
        return _match(message, name, rights, how)
    if how == _OWN:
        if not is_well_known(name) or name == BUS:
            return Act(Do.FORWARD)
        return Act(Do.PERMIT, "own", bus_resource(rights.system, name))
    if how == _RELEASE and name[:1] == ":":
        return Act(Do.FORWARD)
    if not is_bus_name(name) or may_know(name, names, rights, me):
        return (
            Act(Do.FORWARD) if how != _START or not is_bus_name(name) else _start(name, names, rights, me)
        )
    gone = _nothing_there(head.member, name)
    if how == _RELEASE:
        return gone
    if how == _START and name[:1] != ":":
        return _start(name, names, rights, me)
    if name[:1] == ":" or rights.shown(name) == HIDDEN:
        return gone
    return Act(Do.PERMIT, "see", bus_resource(rights.system, name), hidden=gone)


def _start(name: str, names: Names, rights: Rights, me: str) -> Act:
    """Starting a service is what a call to it does: it needs one that is allowed."""
    if name == BUS or name[:1] == ":" or (me and names.owner(name) == me):
        return Act(Do.FORWARD)
    resource = bus_resource(rights.system, name, BUS + ".StartServiceByName", "/org/freedesktop/DBus")
    shown = rights.shown(name)
    hidden = _nothing_there("StartServiceByName", name) if shown == HIDDEN else None
    verdict = rights.decide("call", resource).verdict
    if verdict != ALLOW and rights.may_call(name):
        return Act(Do.FORWARD)  # a call that is allowed would start it, too, and is recorded when it comes
    if verdict == ASK and hidden is not None:
        return hidden
    return Act(Do.PERMIT, "call", resource, hidden=hidden)


def _match(message: Message, text: str, rights: Rights, how: int) -> Act:
    try:
        rule = matches.parse(text)
    except matches.Eavesdropping as e:
        return Act(Do.REFUSE, "call", _resource(rights, message), text=f"a match rule: {e}", note=text)
    except matches.BadRule as e:
        return Act(Do.ANSWER, error=INVALID, text=f"match rule: {e}")
    return Act(Do.LISTEN if how == _LISTEN else Do.UNLISTEN, rule=rule)


# What the bus could not get of a name that is not there, in its words.
_MISSING = {
    "GetNameOwner": "owner",
    "ListQueuedOwners": "owners",
    "GetConnectionUnixUser": "UID",
    "GetConnectionUnixProcessID": "PID",
    "GetConnectionCredentials": "credentials",
}


def _nothing_there(member: str, name: str) -> Act:
    """Return what a bus without ``name`` answers to its method ``member``, to the letter."""
    if member == "NameHasOwner":
        return Act(Do.ANSWER, signature="b", body=0)
    if member == "ReleaseName":
        return Act(Do.ANSWER, signature="u", body=2)  # DBUS_RELEASE_NAME_REPLY_NON_EXISTENT
    if member == "StartServiceByName":
        return Act(Do.ANSWER, error=SERVICE_UNKNOWN, text=_not_provided(name))
    return Act(
        Do.ANSWER, error=NO_OWNER, text=f"Could not get {_MISSING[member]} of name '{name}': no such name"
    )


def _nobody(name: str, flags: int) -> Act:
    """Return what a bus without ``name`` answers to a call to it."""
    if flags & NO_AUTO_START:
        return Act(Do.ANSWER, error=NO_OWNER, text=f'Name "{name}" does not exist')
    return Act(Do.ANSWER, error=SERVICE_UNKNOWN, text=_not_provided(name))


def _not_provided(name: str) -> str:
    return f"The name {name} was not provided by any .service files"


# -- to the agent ----------------------------------------------------------------------------------


def hears(message: Message, names: Names, rights: Rights, me: str) -> tuple[bool, bool]:
    """Say whether the agent may get this signal of another program, and whether all with this header alike. Raises Malformed."""
    head = message.head
    sender = head.sender
    if sender == me:
        return True, True
    plain = head.interface != PROPERTIES and not head.dest
    if head.dest and names.met(sender):
        return True, False
    about = [head.interface]
    if head.interface == PROPERTIES:
        about += leading(message, 1)
    for name in names.owned(sender) or (sender,):
        if rights.name("see", name).verdict == ALLOW:
            return True, plain
        for interface in about:
            resource = bus_resource(rights.system, name, f"{interface}.{head.member}", head.path)
            if rights.decide("call", resource).verdict == ALLOW:
                return True, plain
    return False, plain


def may_reach(message: Message, names: Names, rights: Rights, me: str) -> bool:
    """Say whether a call of another program may come to the agent."""
    head = message.head
    if head.dest[:1] != ":" or names.owned(me):
        return True
    return may_know(head.sender, names, rights, me)
