"""An agent's connection to a bus: between its socket and one of ours, message by message as ``classify`` says.

    agent -> Frames -> classify.outgoing -> permit -> bus          held: a task of its own waits for the person
    agent <- LIST, hears, may_reach, matched replies <- Frames <- bus

- Message bytes are passed on unchanged, but for match rules (``matches``) and lists of names.
- Beside the agent's calls we make our own on the same connection, to know who owns which name: their serials are OURS and
  above, which the agent may not use. The agent's messages after Hello wait until the names are known.
- A reply passes once, if it answers a call that was passed on, in either direction.
- A call that is held holds nothing else. When the answer comes it is classified again: names may have changed hands.
- What is no D-Bus message, from either side, ends the connection and is recorded.
- Whoever does not read is not read from: buffers are bounded in both directions.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import TYPE_CHECKING

from remit_daemon.gateway.authority import Refused
from remit_daemon.gateway.dbus import answers, wire
from remit_daemon.gateway.dbus.classify import (
    ACCESS_DENIED,
    BUS,
    LIMITS,
    NOT_FOUND,
    Act,
    Do,
    hears,
    may_know,
    may_reach,
    outgoing,
)  # fmt: skip
from remit_daemon.gateway.dbus.frames import close_all
from remit_daemon.gateway.dbus.link import Link, each
from remit_daemon.gateway.dbus.names import Names
from remit_daemon.gateway.dbus.rights import SHOWN, Rights
from remit_daemon.gateway.dbus.wire import CALL, ERROR, NO_REPLY, RETURN, SIGNAL, Malformed, Message
from remit_daemon.wire.journal import JournalFailed
from remit_policy.resources import bus_resource

if TYPE_CHECKING:
    from remit_daemon.gateway.authority import Origin, Permit, Standing
    from remit_daemon.gateway.context import Context
    from remit_daemon.gateway.dbus import sasl
    from remit_daemon.gateway.dbus.link import Shared
    from remit_daemon.gateway.dbus.matches import Rule

MAX_PENDING = 4096  # calls without reply, in each direction
MAX_HELD = 256  # calls of one connection that wait for a person
MAX_HELD_BYTES = 1 << 24  # of these calls, together
MAX_RULES = 4096  # match rules of one connection
MAX_CLASSIFIED = 2048  # kinds of messages whose treatment is remembered
COMPLETE_AFTER = 0.01  # seconds: who calls in a row is not kept waiting by the rows' completion
OURS = 0xF000_0000
_NAMES = (
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged'"
)
_RULE = "built-in: the bus"
_REPLIES = (RETURN, ERROR)
_PATH = "/org/freedesktop/DBus"


class _Call:
    """A call that was passed on and not answered: what it was allowed by, whom it went to, what is done with the answer."""

    __slots__ = ("dest", "permit", "rule", "then")

    def __init__(self, dest: str, permit: Permit | None, then: str, rule: Rule | None) -> None:
        self.dest = dest
        self.permit = permit
        self.then = then
        self.rule = rule


class Connection(Link):
    """One agent's connection and ours to the bus, from BEGIN on."""

    def __init__(
        self,
        ctx: Context,
        client: socket.socket,
        bus: socket.socket,
        origin: Origin,
        system: bool,
        files: bool,
        shared: Shared,
    ) -> None:
        super().__init__(client, bus, files, shared)
        self._ctx = ctx
        self._authority = ctx.authority
        self._origin = origin
        self._system = system
        self._names = Names()
        self._rights = Rights(ctx.authority, system)
        self._me = ""
        self._calls: dict[int, _Call] = {}  # of the agent, by serial
        self._asked: dict[tuple[str, int], None] = {}  # of others to the agent, by caller and serial
        self._outgoing: dict[wire.Header, Act] = {}
        self._standing: dict[wire.Header, Standing] = {}  # of those, what is simply allowed
        self._heard: dict[wire.Header, bool] = {}
        self._rules: Counter[Rule] = Counter()  # match rules that the bus has
        self._kept: Counter[Rule] = Counter()  # those that could match nothing which the agent may hear
        self._waiting: list[Message] | None = None  # the agent's messages while the names are not known
        self._unknown: dict[int, str] = {}  # our questions for owners, by serial
        self._serial = OURS
        self._answers = 0
        self._held: set[asyncio.Task[None]] = set()
        self._held_bytes = 0
        self._answered: list[tuple[Permit, str]] = []  # their rows are completed together, a little later
        self._completing = False
        self._gone = asyncio.Event()

    async def run(self, shaken: sasl.Shaken) -> None:
        """Serve until one side ends."""
        self._authority.on_change.append(self._policy_changed)
        try:
            self._regulate()
            if shaken.from_bus:
                self._take_bus(shaken.from_bus, [])
            if shaken.from_client:
                self._take_client(shaken.from_client, [])
            await self._over
            await self._drain()
        finally:
            self._authority.on_change.remove(self._policy_changed)
            await self._close()

    async def _close(self) -> None:
        self._close_link()
        self._gone.set()
        self._complete()
        for call in self._calls.values():
            if call.permit is not None:
                call.permit.done("unanswered")
        self._calls.clear()
        for message in self._waiting or ():
            close_all(message.files)
        if self._held:
            await asyncio.gather(*self._held, return_exceptions=True)

    def _may_read(self) -> bool:
        return self._waiting is None

    # -- what comes most often, in short: the long way does all that this does not ----

    def _repeat(self, data: bytes) -> bool:
        """Pass on one call of a kind that was allowed before; returns False when it is anything else."""
        try:
            message = self._from_client.alone(data)
            if message is None or self._to_bus.size:
                return False
            standing = self._standing.get(message.head)
            serial = message.serial
            if standing is None or serial >= OURS or message.flags & NO_REPLY or self._waiting is not None:
                return False
            if serial in self._calls or len(self._calls) >= MAX_PENDING:
                return False
            number = standing.record()
            if not number:
                return False
        except (Malformed, JournalFailed):
            return False
        # Recorded: it may go, and what is kept for its answer is made while it is on its way.
        self._send(self._bus, self._to_bus, data)
        self._calls[serial] = _Call(message.head.dest, standing.permit(number), "", None)
        return True

    def _return(self, data: bytes) -> bool:
        """Pass on one reply to a call to a program; returns False when it is anything else."""
        try:
            message = self._from_bus.alone(data)
        except Malformed:
            return False
        if message is None or self._to_client.size:
            return False
        head = message.head
        call = self._calls.get(message.reply)
        if call is None or head.type not in _REPLIES or call.then or call.permit is None:
            return False
        if call.dest[:1] == ":" and head.sender != call.dest:
            return False
        if not self._names.met(head.sender):
            return False
        self._send(self._client, self._to_client, data)
        del self._calls[message.reply]
        self._answer_later(call.permit, head.error)
        return True

    def _answer_later(self, permit: Permit, error: str) -> None:
        """Have the row of an answered call completed."""
        self._answered.append((permit, error))
        if not self._completing:
            self._completing = True
            self._loop.call_later(COMPLETE_AFTER, self._complete)

    def _malformed(self, reason: str) -> None:
        self._authority.refuse("call", bus_resource(self._system, BUS), self._origin, reason, _RULE)
        self._end()

    def _lied(self, reason: str) -> None:
        self._authority.fault("call", reason)
        self._end()

    def _fault(self, e: Exception) -> None:
        self._ctx.log.error("fault", exc_info=e)
        self._authority.fault("call", f"internal fault: {type(e).__name__}: {e}")
        self._end()

    def _complete(self) -> None:
        """Complete the rows of the calls that were answered."""
        self._completing = False
        answered, self._answered = self._answered, []
        self._authority.complete(answered)

    # -- from the agent ----------------------------------------------------------------------------

    def _sent(self, message: Message) -> None:
        """Do with the agent's message what is to be done."""
        if self._waiting is not None:
            self._waiting.append(message)
            return
        head = message.head
        if message.serial >= OURS:
            raise Malformed(f"serial {message.serial:#x}")
        act = self._outgoing.get(head)
        if act is None:
            act = outgoing(message, self._names, self._rights, self._me)
            if act.plain:
                if len(self._outgoing) >= MAX_CLASSIFIED:
                    self._outgoing.clear()
                    self._standing.clear()
                self._outgoing[head] = act
        do = act.do
        if do is Do.PERMIT:
            self._permit(message, act)
        elif do is Do.REPLY:
            if self._asked.pop((head.dest, message.reply), self) is self:
                close_all(message.files)
            else:
                self._to_bus.put(message.data, message.files)
        elif do is Do.FORWARD:
            self._pass(message, None, _THEN.get(head.member, "") if head.dest == BUS else "")
        elif do is Do.LIST:
            self._pass(message, None, "list")
        elif do is Do.LISTEN or do is Do.UNLISTEN:
            self._match(message, act)
        elif do is Do.REFUSE:
            refused = self._authority.refuse(act.op, act.resource, self._origin, act.text, _RULE)
            self._refused(message, act, refused)
        elif do is Do.ANSWER:
            self._answer(message, act)
        else:
            close_all(message.files)

    def _permit(self, message: Message, act: Act) -> None:
        standing = self._standing.get(message.head)
        try:
            permit = standing.take() if standing is not None else None
            permit = permit or self._authority.permit_now(act.op, act.resource, self._origin, act.note)
        except JournalFailed as e:
            self._refused(
                message, act, Refused(str(e), rule="built-in: the ledger", op=act.op, resource=act.resource)
            )
            return
        except Refused as e:
            self._refused(message, act, e)
            return
        if permit is not None:
            if act.plain and act.op == "call" and message.head not in self._standing:
                found = self._authority.standing(act.op, act.resource, self._origin, act.note)
                if found is not None:
                    self._standing[message.head] = found
            self._pass(message, permit, _THEN.get(message.head.member, "") if act.op == "see" else "")
            return
        if len(self._held) >= MAX_HELD or self._held_bytes + len(message.data) > MAX_HELD_BYTES:
            why = "too many calls of this connection are held"
            self._refused(
                message,
                act,
                self._authority.refuse(act.op, act.resource, self._origin, why, "built-in: limits"),
            )
            return
        self._held_bytes += len(message.data)
        task = self._loop.create_task(self._hold(message, act))
        self._held.add(task)
        task.add_done_callback(self._held.discard)

    async def _hold(self, message: Message, act: Act) -> None:
        """Wait for a person, then go on with this one message."""
        permit: Permit | None
        try:
            permit = await self._authority.permit(
                act.op, act.resource, self._origin, note=act.note, gone=self._gone
            )
            if self._over.done():
                permit.done("gone")
                close_all(message.files)
                return
            again = outgoing(message, self._names, self._rights, self._me)
            if again.do is not Do.PERMIT or (again.op, again.resource) != (act.op, act.resource):
                # Names changed hands, or rules speak of arguments no more: what it is now must be allowed by itself.
                permit.done("refused", note="it is another call now")
                act = again
                permit = self._now(message, again)
            self._pass(message, permit, _THEN.get(message.head.member, "") if act.op == "see" else "")
        except Refused as e:
            if self._over.done():
                close_all(message.files)
            else:
                self._refused(message, act, e)
        except Exception as e:
            close_all(message.files)
            self._fault(e)
        finally:
            self._held_bytes -= len(message.data)
        if not self._over.done():
            try:
                self._flush()
            except OSError:
                self._end()

    def _now(self, message: Message, act: Act) -> Permit | None:
        """Return the permit of what a held call has become. Raises Refused when that is not simply allowed."""
        if act.do is Do.FORWARD:
            return None
        permit = (
            self._authority.permit_now(act.op, act.resource, self._origin, act.note)
            if act.do is Do.PERMIT
            else None
        )
        if permit is None:
            why = "the name changed hands while a person was asked"
            raise self._authority.refuse(act.op or "call", act.resource, self._origin, why, _RULE)
        return permit

    def _pass(
        self,
        message: Message,
        permit: Permit | None,
        then: str = "",
        rule: Rule | None = None,
        data: bytes = b"",
    ) -> None:
        """Pass ``message`` (or ``data`` in its place) on to the bus, and expect the answer."""
        if message.head.type == CALL and not message.flags & NO_REPLY:
            if len(self._calls) >= MAX_PENDING or message.serial in self._calls:
                if permit is not None:
                    permit.done("EAGAIN")
                self._answer(
                    message,
                    Act(Do.ANSWER, error=LIMITS, text="too many calls without reply, or a serial in use"),
                )
                return
            self._calls[message.serial] = _Call(message.head.dest, permit, then, rule)
        elif permit is not None:
            permit.done()
        self._to_bus.put(data or message.data, message.files)
        if then == "hello" and not self._me:
            if message.flags & NO_REPLY:
                raise Malformed("a Hello that wants no answer")
            self._ask_names()

    # -- our answers -------------------------------------------------------------------------------

    def _refused(self, message: Message, act: Act, refused: Refused) -> None:
        if act.hidden is not None:
            self._answer(message, act.hidden)
            return
        text = answers.reason(refused, act.said)
        self._answer(message, Act(Do.ANSWER, error=ACCESS_DENIED, text=text))

    def _answer(self, message: Message, act: Act) -> None:
        """Answer the agent's call as the bus would."""
        close_all(message.files)
        if message.head.type == CALL and not message.flags & NO_REPLY:
            self._to_client.put(answers.as_bus(act, self._next_answer(), message.serial, self._me))

    def _next_answer(self) -> int:
        self._answers = self._answers % 0x7FFF_FFFF + 1
        return OURS | self._answers & 0x0FFF_FFFF or 1

    # -- match rules -------------------------------------------------------------------------------

    def _match(self, message: Message, act: Act) -> None:
        rule = act.rule
        assert rule is not None
        done = Act(Do.ANSWER)
        if act.do is Do.LISTEN:
            if self._rules.total() + self._kept.total() >= MAX_RULES:
                self._answer(message, Act(Do.ANSWER, error=LIMITS, text="too many match rules"))
            elif self._is_silent(rule):
                self._kept[rule] += 1
                self._answer(message, done)
            else:
                self._rules[rule] += 1
                self._say_rule(message, rule, "listen")
        elif rule in self._kept:
            _less(self._kept, rule)
            self._answer(message, done)
        elif rule in self._rules:
            _less(self._rules, rule)
            self._say_rule(message, rule, "")
        else:
            self._answer(message, Act(Do.ANSWER, error=NOT_FOUND, text="The given match rule wasn't found"))

    def _is_silent(self, rule: Rule) -> bool:
        """Say whether the rule is about a name of which the agent may hear nothing now."""
        sender = rule.sender
        return sender[:1] not in ("", ":") and not may_know(sender, self._names, self._rights, self._me)

    def _say_rule(self, message: Message, rule: Rule, then: str) -> None:
        """Pass the call on with the rule as we understood it."""
        head = message.head
        data = wire.build(
            CALL, message.serial, path=head.path, interface=BUS, member=head.member, dest=BUS, signature="s",
            body=wire.pack_strings(rule.text), flags=message.flags,
        )  # fmt: skip
        self._pass(message, None, then, rule, data)

    # -- whose names -------------------------------------------------------------------------------

    def _next_serial(self) -> int:
        self._serial = OURS + (self._serial + 1 - OURS) % 0x0FFF_FFFF
        return self._serial

    def _ask(self, member: str, *arguments: str, flags: int = 0) -> int:
        self._next_serial()
        self._to_bus.put(
            wire.build(
                CALL, self._serial, path=_PATH, interface=BUS, member=member, dest=BUS, flags=flags,
                signature="s" * len(arguments), body=wire.pack_strings(*arguments),
            )
        )  # fmt: skip
        return self._serial

    def _ask_names(self) -> None:
        """Behind the agent's Hello: be told of changes, and ask what is there. Until then the agent waits."""
        self._waiting = []
        self._unknown[self._ask("AddMatch", _NAMES)] = ""
        self._unknown[self._ask("ListNames")] = "*"

    def _learn(self, message: Message) -> None:
        """Take an answer to a question of ours."""
        name = self._unknown.pop(message.reply, None)
        if name is None:
            return
        if message.head.type == ERROR:
            if name in ("", "*"):
                raise Malformed(f"it does not let us know its names: {message.head.error}")
        elif name == "*":
            for one in wire.strings(message):
                if one[:1] != ":" and one != BUS:
                    if len(self._unknown) > MAX_CLASSIFIED * 16:
                        raise OverflowError("more names than can be followed")
                    self._unknown[self._ask("GetNameOwner", one)] = one
        elif name:
            self._names.change(name, _first(message))
        if not self._unknown and self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            try:
                each(waiting, self._sent)
            except Malformed as e:
                self._malformed(f"malformed: {e}")
            self._regulate()

    def _name_changed(self, message: Message) -> None:
        """Take NameOwnerChanged, and let the agent have it if it wants it and may know that name."""
        arguments = wire.leading(message, 3)
        if len(arguments) != 3:
            raise Malformed("NameOwnerChanged without three names")
        name, old, new = arguments
        names = self._names
        known = (
            self._me in (name, old, new)
            or (name[:1] == ":" and names.met(name))
            or (name[:1] != ":" and self._rights.shown(name) == SHOWN)
        )
        if names.change(name, new):
            self._outgoing.clear()
            self._standing.clear()
            self._heard.clear()
        if name[:1] == ":" and not new:
            for key in [k for k in self._asked if k[0] == name]:
                del self._asked[key]
        if not known:
            return
        if new and new != self._me:
            names.meet(new)
        sender = frozenset((BUS,))
        if any(
            n and r.fits(sender, BUS, "NameOwnerChanged", _PATH, arguments) for r, n in self._rules.items()
        ):
            self._to_client.put(message.data)

    def _policy_changed(self) -> None:
        """A new snapshot is in force."""
        self._rights.clear()
        self._outgoing.clear()
        self._standing.clear()
        self._heard.clear()
        for rule, count in list(self._kept.items()):
            if not self._is_silent(rule):
                del self._kept[rule]
                self._rules[rule] += count
                for _ in range(count):
                    self._ask("AddMatch", rule.text, flags=NO_REPLY)
        try:
            self._flush()
        except OSError:
            self._end()

    # -- to the agent ------------------------------------------------------------------------------

    def _got(self, message: Message) -> None:
        """Do with the bus's message what is to be done."""
        head = message.head
        kind = head.type
        if not head.sender:
            raise Malformed("a message of nobody")
        if kind in _REPLIES:
            if self._reply(message):
                return
        elif kind == SIGNAL:
            if head.sender == BUS:
                if head.member == "NameOwnerChanged" and head.interface == BUS:
                    self._name_changed(message)
                    close_all(message.files)
                    return
                self._to_client.put(message.data, message.files)
                return
            heard = self._heard.get(head)
            if heard is None:
                heard, plain = hears(message, self._names, self._rights, self._me)
                if plain:
                    if len(self._heard) >= MAX_CLASSIFIED:
                        self._heard.clear()
                    self._heard[head] = heard
            if heard:
                self._to_client.put(message.data, message.files)
                return
        elif self._called(message):
            return
        close_all(message.files)

    def _reply(self, message: Message) -> bool:
        """Pass a reply on; returns False when it answers nothing."""
        head = message.head
        if message.reply >= OURS:
            if head.sender == BUS:
                self._learn(message)
            return False
        call = self._calls.get(message.reply)
        if call is None or (call.dest[:1] == ":" and head.sender not in (call.dest, BUS)):
            return False
        if call.dest == BUS and head.sender != BUS:
            return False
        del self._calls[message.reply]
        if call.permit is not None:
            self._answer_later(call.permit, head.error)
        if call.then and not self._then(message, call):
            return True
        if head.sender != BUS and not self._names.met(head.sender):
            self._names.meet(head.sender)
        self._to_client.put(message.data, message.files)
        return True

    def _then(self, message: Message, call: _Call) -> bool:
        """Do what the answer of the bus itself is to be used for; returns False when it was passed on by that."""
        if message.head.type == ERROR:
            if call.then == "listen" and call.rule is not None:
                _less(self._rules, call.rule)
            return True
        if call.then == "hello":
            self._me = self._me or _first(message)
        elif call.then == "owner":
            self._names.meet(_first(message))
        elif call.then == "list":
            shown = [n for n in wire.strings(message) if may_know(n, self._names, self._rights, self._me)]
            self._to_client.put(
                wire.build(
                    RETURN, message.serial, reply=message.reply, dest=self._me, sender=BUS, signature="as",
                    body=wire.pack_list(shown),
                )
            )  # fmt: skip
            return False
        return True

    def _called(self, message: Message) -> bool:
        """Pass another program's call on to the agent; returns False when it does not go there."""
        head = message.head
        if may_reach(message, self._names, self._rights, self._me):
            if message.flags & NO_REPLY:
                self._to_client.put(message.data, message.files)
                return True
            if len(self._asked) < MAX_PENDING:
                self._asked[head.sender, message.serial] = None
                self._names.meet(head.sender)
                self._to_client.put(message.data, message.files)
                return True
        if not message.flags & NO_REPLY:
            self._to_bus.put(answers.to_caller(self._next_serial(), message.serial, head.sender))
        return False


# What the answers of the bus to these are used for.
_THEN = {"Hello": "hello", "GetNameOwner": "owner"}


def _less(rules: Counter[Rule], rule: Rule) -> None:
    rules[rule] -= 1
    if rules[rule] <= 0:
        del rules[rule]


def _first(message: Message) -> str:
    """Return the one name that a driver's answer holds. Raises Malformed."""
    found = wire.leading(message, 1)
    if not found or not wire.is_bus_name(found[0]):
        raise Malformed("an answer without a name")
    return found[0]
