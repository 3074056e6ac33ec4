"""Call a program on the session bus for somebody: decided as the gateway's filter decides it, sent to the very program that was decided on.

The call is made as a message and classified by ``gateway.dbus.classify``, with the same rights, names and refusals, as if it had come
over a session's bus; what is said of a name that may not be seen is what a bus without it would say. Then:

- The owner of a well-known name is looked up together with all that it owns; decided by these, and the message goes to that owner's
  unique name. Between a question and its answer names change hands, so they are looked up again, and what is another call now is refused.
- The bus itself is not called for anybody, nor is remitd: who calls would be remitd.
- Nothing is started, unless the caller says ``start``: then once the call is allowed, and what came up is decided on again.
- The connection is of this one call, so other programs can be told for whom it is (``Actors.Describe``).
- Descriptors are not handed on in either direction: those in a reply are closed, and counted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from remit_daemon.broker.core import Refused
from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.classify import BUS, NO_OWNER, Act, Do, outgoing
from remit_daemon.gateway.dbus.direct import Direct
from remit_daemon.gateway.dbus.rights import Rights
from remit_daemon.gateway.dbus.values import pack, unpack
from remit_daemon.gateway.dbus.wire import NO_AUTO_START, Malformed
from remit_daemon.runtime.bus import address
from remit_daemon.runtime.lines import Problem
from remit_daemon.runtime.opening import denied
from remit_daemon.wire.rpc import BUSY, DENIED, FAILED, INVALID_PARAMS
from remit_policy.model import DENY, Decision
from remit_policy.resources import bus_resource

if TYPE_CHECKING:
    from remit_daemon.gateway.authority import Authority
    from remit_daemon.gateway.dbus.names import Names
    from remit_daemon.gateway.dbus.wire import Message
    from remit_daemon.runtime.asks import Caller
    from remit_daemon.runtime.daemon import Daemon
    from remit_policy.engine import Engine

WITHIN = 25.0  # seconds for a program to answer, as libdbus has it
MAX_CALLS = 256  # under way at once, those that wait for a person included: each is a connection to the bus
MAX_CALLS_EACH = 8  # of one session
_OPS = ("call",)
_RULE = "built-in: call"
_NOTE = "for it, by remitd"
_NOBODYS = "neither the bus nor remit is called for anybody"


class Calling:
    """Calls programs for callers. One for the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._busy: Counter[str] = Counter()
        self._for: dict[str, str] = {}  # unique name of a call's connection → session

    def session_of(self, unique: str) -> str:
        """Return the session for which the connection ``unique`` calls, "" when it is none of ours."""
        return self._for.get(unique, "")

    async def call(
        self, caller: Caller, name: str, path: str, interface: str, member: str, signature: str, args: list[Any],
        start: bool, purpose: str, wait: float | None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return {signature, args, descriptors, sender} of the program's reply. Raises Problem, and what ``settle`` raises."""
        _check(name, path, interface, member)
        resource = bus_resource(False, name, f"{interface}.{member}", path)
        if name == BUS or name.startswith("dev.remit."):
            self._daemon.asks.refuse(caller, _OPS, resource, _NOBODYS)
            raise _no(resource, _NOBODYS)
        if self._busy[caller.session] >= MAX_CALLS_EACH or self._busy.total() >= MAX_CALLS:
            raise Refused(BUSY, "too many calls of this program are under way; wait for one to end")
        self._busy[caller.session] += 1
        try:
            async with self._daemon.lanes.agents():
                try:
                    body = pack(signature, args)
                except ValueError as e:
                    raise Problem(INVALID_PARAMS, str(e)) from None
            where = address()
            if not where:
                raise _unreachable(resource, "there is no session bus")
            async with await Direct.open(where) as bus:
                self._for[bus.me] = caller.session
                try:
                    flags = 0 if start else NO_AUTO_START
                    message = bus.message(name, path, interface, member, signature, body, flags)
                    return await _Call(self._daemon, self, caller, bus, message).run(start, purpose, wait)
                finally:
                    del self._for[bus.me]
        except TimeoutError:
            raise _unreachable(resource, "the bus does not answer") from None
        except (OSError, Malformed) as e:
            text = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
            raise _unreachable(resource, text) from None
        finally:
            self._busy[caller.session] -= 1
            if not self._busy[caller.session]:
                del self._busy[caller.session]

    def ours(self, unique: str) -> bool:
        """Tell whether remitd itself is behind the connection ``unique``."""
        return unique in self._for or unique == self._daemon.bus.me


class _Call:
    """One call on its way."""

    def __init__(
        self, daemon: Daemon, calling: Calling, caller: Caller, bus: Direct, message: Message
    ) -> None:
        self._daemon = daemon
        self._calling = calling
        self._caller = caller
        self._bus = bus
        self._message = message
        self._name = message.head.dest
        head = message.head
        self._plain = bus_resource(False, self._name, f"{head.interface}.{head.member}", head.path)
        self._rights = Rights(cast("Authority", _Policy(daemon, caller.session)), system=False)
        self._outcome = "refused"

    async def run(self, start: bool, purpose: str, wait: float | None) -> dict[str, Any]:
        """Decide, send, and return the reply. Raises Problem, and what ``settle`` and ``Direct`` raise."""
        act, _ = await self._classified()
        if act.do is Do.PERMIT:
            note = "; ".join(t for t in (_NOTE, act.note) if t)
            told = await self._daemon.asks.settle(
                self._caller, _OPS, act.resource, purpose=purpose, wait=wait, note=note
            )
            if told.verdict != "allow":
                raise self._absent(act) if act.hidden is not None else denied(_OPS, self._said(act), told)
        elif act.do is Do.FORWARD:
            told = self._daemon.asks.unasked(self._caller, _OPS, self._plain, "it only looks")
        else:
            why = act.text or "nothing that is called for anybody"
            self._refuse(act.resource or self._plain, why)
            raise self._absent(act) if act.hidden is not None else _no(self._said(act), why)
        try:
            return await self._send(await self._owner(act, start), act)
        except (OSError, TimeoutError, Malformed):
            self._outcome = "EIO"
            raise
        finally:
            self._daemon.asks.done(told.row, self._outcome)

    async def _classified(self) -> tuple[Act, str]:
        """Return what is to be done with the call now, and who would get it, "" for nobody. Raises Problem."""
        names: Names = await self._bus.names()
        owner = self._name if self._name[:1] == ":" else names.owner(self._name)
        async with self._daemon.lanes.agents():
            if self._calling.ours(owner):
                self._refuse(self._plain, _NOBODYS)
                raise _no(self._plain, _NOBODYS)
            self._rights.clear()
            return outgoing(self._message, names, self._rights, self._bus.me), owner

    async def _owner(self, act: Act, start: bool) -> str:
        """Return the unique name of who gets the call: still the program that was decided on. Raises Problem."""
        owner = await self._still(act)
        error, text = NO_OWNER, f'Name "{self._name}" does not exist'
        if not owner and start:
            error, text = await self._bus.start(self._name, WITHIN)
            owner = await self._still(act)
        if not owner:
            self._outcome = "ENOENT"
            raise _failed(self._said(act), error or NO_OWNER, text)
        return owner

    async def _still(self, act: Act) -> str:
        again, owner = await self._classified()
        why = ""
        if (again.do, again.op, again.resource) != (act.do, act.op, act.resource):
            why = "the name changed hands, or the policy, and it is another call now"
        elif act.do is Do.PERMIT and self._rights.decide("call", act.resource).verdict == DENY:
            why = "the policy denies it"
        if why:
            self._refuse(act.resource or self._plain, why)
            raise _no(self._said(act), why)
        return owner

    async def _send(self, owner: str, act: Act) -> dict[str, Any]:
        head = self._message.head
        pinned = self._bus.message(
            owner, head.path, head.interface, head.member, head.signature, bytes(self._message.body)
        )
        try:
            reply, descriptors = await self._bus.call(pinned, WITHIN)
        except TimeoutError:
            self._outcome = "ETIMEDOUT"
            raise _unreachable(self._said(act), f"no answer within {WITHIN:g} s") from None
        async with self._daemon.lanes.agents():
            args = unpack(reply)
        error = reply.head.error
        self._outcome = f"ok {error}" if error else "ok"
        if error:
            text = args[0] if args and isinstance(args[0], str) else error
            raise _failed(self._said(act), error, text)
        return {
            "signature": reply.head.signature, "args": args, "descriptors": descriptors, "sender": reply.head.sender,
        }  # fmt: skip

    def _said(self, act: Act) -> str:
        """Return the resource as the caller may know it."""
        return self._plain if act.hidden is not None else act.said or act.resource or self._plain

    def _absent(self, act: Act) -> Problem:
        """Return what is said of a name that may not be seen: that of one which is not there."""
        assert act.hidden is not None
        return _failed(self._plain, act.hidden.error, act.hidden.text)

    def _refuse(self, resource: str, why: str) -> None:
        self._daemon.asks.refuse(self._caller, _OPS, resource, why)


class _Policy:
    """A session's policy in force, as ``Rights`` asks for it; it is its own engine."""

    def __init__(self, daemon: Daemon, session: str) -> None:
        self._daemon = daemon
        self._session = session

    @property
    def engine(self) -> _Policy:
        return self

    def decide(self, op: str, resource: str) -> Decision:
        """As Authority.decide"""
        try:
            return self._daemon.broker.decide(self._session, (op,), resource)
        except Refused:
            return Decision(DENY, None)

    def _engines(self) -> list[Engine]:
        return cast("list[Engine]", self._daemon.broker.engines(self._session))

    def may_call(self, system: bool, name: str) -> bool:
        """As Engine.may_call, by all"""
        return all(e.may_call(system, name) for e in self._engines())

    def calls_alike(self, system: bool, name: str) -> int | None:
        """As Engine.calls_alike"""
        return _alike([e.calls_alike(system, name) for e in self._engines()])

    def arguments_alike(self, resource: str) -> int | None:
        """As Engine.arguments_alike"""
        return _alike([e.arguments_alike(resource) for e in self._engines()])


def _alike(verdicts: list[int | None]) -> int | None:
    known = [v for v in verdicts if v is not None]
    if DENY in known:
        return DENY
    return max(known) if len(known) == len(verdicts) else None


def _check(name: str, path: str, interface: str, member: str) -> None:
    """Raise Problem unless these can stand in a message."""
    for text, fits, what in (
        (name, wire.is_bus_name, "name is the name of a program on the session bus, such as org.mpris.MediaPlayer2.vlc"),
        (path, wire.is_object_path, "path is an object path, such as /org/mpris/MediaPlayer2"),
        (interface, wire.is_interface, "interface is a dotted name, such as org.mpris.MediaPlayer2.Player"),
        (member, wire.is_member, "member is a method's name, such as Pause"),
    ):  # fmt: skip
        if not fits(text):
            raise Problem(INVALID_PARAMS, what)


def _no(resource: str, why: str) -> Problem:
    return Problem(DENIED, f"{resource}: {why}", {"op": "call", "resource": resource, "rule": _RULE})


def _failed(resource: str, error: str, text: str) -> Problem:
    return Problem(FAILED, text, {"op": "call", "resource": resource, "error": error})


def _unreachable(resource: str, why: str) -> Problem:
    return _failed(resource, "", f"{resource}: {why}")
