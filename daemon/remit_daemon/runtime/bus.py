"""``dev.remit.Broker1`` on the session bus: other programs ask who it is that calls them.

    /dev/remit/Broker1   dev.remit.Broker1.Actors
        Describe(s subject) -> a{sv}          a bus name (:1.42 or well-known), or an absolute path: who wrote it last
        DescribeProcess(u pid) -> a{sv}
        DescribeProcessFD(h pidfd) -> a{sv}   a process that the caller holds: its number may be another's by then, its pidfd is not

    actor s: human, agent, remit, or "" when nothing is known; agent s, session s: which; assurance s: L3 (started by
    remit) to L0, of an agent; note s: that nothing holds an adopted process to its name; for a path also time d: of the act,
    basis s: object, content or path, and text s: the same as a sentence (``runtime.whose``)

and the verbs of ``runtime.busverbs``. Their caller is the process that made the connection to the bus, by the bus's word: held by the
pidfd that it gives (ProcessFD), else by its number, looked at twice, which is assurance L0.

The one module that imports dbus-next, which leaks the descriptors of messages that nobody takes: so each message's are taken here as
it comes, and closed unless a call of ours waits for them. It answers its own interfaces and nothing else; a bus that goes away is looked for again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType, NameFlag, RequestNameReply
from dbus_next.message import Message
from dbus_next.signature import SignatureTree, Variant

from remit_daemon.broker.core import Refused
from remit_daemon.gateway.dbus.values import types
from remit_daemon.peers.process import PeerError, alive, identify, inside_session, pid_of
from remit_daemon.runtime import whose
from remit_daemon.runtime.actors import as_actor, describe, may_speak, session_of
from remit_daemon.runtime.asks import Caller
from remit_daemon.runtime.busverbs import (
    METHODS,
    TOKEN,
    VERBS,
    Answer,
    BusError,
    answer,
    introspection,
)
from remit_daemon.runtime.clients import described
from remit_daemon.wire.escape import escape

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

log = logging.getLogger("remitd.bus")

NAME, PATH, ACTORS = "dev.remit.Broker1", "/dev/remit/Broker1", "dev.remit.Broker1.Actors"
RETRY = 30.0  # seconds until a bus that is not there is tried again
CONNECT_WITHIN = 10.0  # seconds for the bus to let us in
MAX_ASKED = 256  # questions answered at once; more are told to come again
MAX_ASKED_EACH = 16  # of those, one caller's
MAX_CALLERS = (
    256  # callers remembered, each with a pidfd; those not heard of for longest are looked at again
)
SEND_WITHIN = 30.0  # seconds for the bus to take an answer that carries a descriptor
ANSWER_WITHIN = 10.0  # seconds for the bus itself to answer us
_DESCRIBE = {"Describe": "s", "DescribeProcess": "u", "DescribeProcessFD": "h"}
_E = "org.freedesktop.DBus.Error."
_DRIVER = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_SHOWS, _SHOWS_AT = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
_XML = f"""<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
  <interface name="{ACTORS}">
    <method name="Describe"><arg name="subject" type="s" direction="in"/><arg name="actor" type="a{{sv}}" direction="out"/></method>
    <method name="DescribeProcess"><arg name="pid" type="u" direction="in"/><arg name="actor" type="a{{sv}}" direction="out"/></method>
    <method name="DescribeProcessFD"><arg name="pidfd" type="h" direction="in"/><arg name="actor" type="a{{sv}}" direction="out"/></method>
  </interface>
{introspection()}
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect"><arg name="xml" type="s" direction="out"/></method>
  </interface>
</node>
"""


def address() -> str:
    """Return the session bus's address, "" when there is none."""
    given = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    usual = f"{os.environ.get('XDG_RUNTIME_DIR') or f'/run/user/{os.getuid()}'}/bus"
    return given or (f"unix:path={usual}" if os.path.exists(usual) else "")


class Failed(Exception):
    """A question that has no answer: ``kind`` is the D-Bus error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class BusService:
    """Our name on the bus. ``run`` keeps it."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._bus: MessageBus | None = None
        self._asked: dict[asyncio.Task[None], str] = {}  # → whose
        self._came: dict[int, list[int]] = {}  # serial of a call of ours → the descriptors of its answer
        self._callers: dict[str, _Held] = {}
        self._shower = ""  # the connection that shows notifications

    @property
    def me(self) -> str:
        """The unique name of our connection, "" while there is none."""
        return (self._bus.unique_name or "") if self._bus is not None else ""

    async def run(self) -> None:
        """Keep the name for ever, whenever there is a bus."""
        quiet = False
        while True:
            where = address()
            try:
                if where:
                    await self._serve(where)
                    quiet = False
            except Exception as e:  # whatever a bus or the library does ends this connection, not remitd
                if not quiet:
                    log.warning("no service on the session bus: %s", e or type(e).__name__)
                quiet = True
            await asyncio.sleep(RETRY)

    async def _serve(self, where: str) -> None:
        async with asyncio.timeout(CONNECT_WITHIN):
            bus = await MessageBus(bus_address=where, negotiate_unix_fd=True).connect()
        self._bus = bus
        try:
            bus.add_message_handler(self._message)
            if await bus.request_name(NAME, NameFlag.DO_NOT_QUEUE) is not RequestNameReply.PRIMARY_OWNER:
                raise ConnectionError(f"another program is {NAME}")
            await self._call(
                bus, *_DRIVER, "AddMatch", "s", [f"type='signal',interface='{_SHOWS}',path='{_SHOWS_AT}'"]
            )
            self._daemon.desktop.again()
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        finally:
            self._bus = None
            self._shower = ""
            bus.disconnect()  # type: ignore[no-untyped-call]
            for held in self._callers.values():
                held.close()
            self._callers.clear()

    def _message(self, message: Message) -> Message | bool | None:
        fds, message.unix_fds = message.unix_fds, []
        if message.message_type is MessageType.SIGNAL:
            _close(fds)
            self._signal(message)
            return None
        if message.message_type is not MessageType.METHOD_CALL:
            if message.reply_serial in self._came:
                self._came[message.reply_serial] = list(fds)
            else:
                _close(fds)
            return None
        wanted = message.member == "DescribeProcessFD" and message.signature == "h" and len(fds) == 1
        if not wanted:
            _close(fds)
            fds = []
        if message.path == PATH and self._serving(message) is not None:
            sender = message.sender or ""
            mine = sum(1 for whose in self._asked.values() if whose == sender)
            if len(self._asked) >= MAX_ASKED or mine >= MAX_ASKED_EACH:
                _close(fds)
                return Message.new_error(message, _E + "LimitsExceeded", "too many questions at once")
            task = asyncio.get_running_loop().create_task(self._answer(message, fds))
            self._asked[task] = sender
            task.add_done_callback(self._asked.pop)
            return True
        _close(fds)
        if message.member == "Introspect" and message.path == PATH:
            return Message.new_method_return(message, "s", [_XML])
        if message.interface == "org.freedesktop.DBus.Peer":
            return None
        return Message.new_error(
            message, _E + "UnknownMethod", f"{PATH} has {ACTORS}, {VERBS} and {TOKEN} alone"
        )

    @staticmethod
    def _serving(message: Message) -> tuple[str, str, str] | None:
        """Return (interface, signature in, signature out) of the method that ``message`` calls, None when there is none."""
        if message.interface in (ACTORS, None) and message.member in _DESCRIBE:
            return ACTORS, _DESCRIBE[message.member], "a{sv}"
        for interface in (message.interface,) if message.interface else (VERBS, TOKEN):
            found = METHODS.get((interface, message.member))
            if found is not None:
                return interface, *found
        return None

    def _signal(self, message: Message) -> None:
        if not self._shower or message.sender != self._shower or message.interface != _SHOWS:
            return  # anybody may send a signal; what was clicked is the server's to say
        if message.member == "ActionInvoked" and message.signature == "us":
            self._daemon.desktop.acted(*message.body)
        elif message.member == "NotificationClosed" and message.signature == "uu":
            self._daemon.desktop.closed(message.body[0])

    async def show(self, replaces: int, summary: str, body: str, actions: tuple[str, ...]) -> int:
        """Show a notification in the place of ``replaces`` (0: a new one) and return its number.

        ``actions`` are keys and labels in turn. Raises OSError or TimeoutError when nothing shows it. Desktop Notifications
        Specification 1.2, "org.freedesktop.Notifications.Notify".
        """
        arguments = ["remit", replaces, "", summary, body, list(actions), {"urgency": Variant("y", 1)}, -1]
        reply = await self._call(self._bus, _SHOWS, _SHOWS_AT, _SHOWS, "Notify", "susssasa{sv}i", arguments)
        if reply.signature != "u":
            raise OSError("what shows notifications gives them no number")
        self._shower = reply.sender or ""
        return int(reply.body[0])

    async def close_notification(self, ident: int) -> None:
        """Close a notification. Raises OSError or TimeoutError."""
        await self._call(self._bus, _SHOWS, _SHOWS_AT, _SHOWS, "CloseNotification", "u", [ident])

    async def _call(
        self,
        bus: MessageBus | None,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: list[Any],
    ) -> Message:
        """Return the reply to a call. Raises OSError for an error in its place, TimeoutError when none comes."""
        if bus is None or not bus.connected:
            raise OSError("there is no session bus")
        message = Message(
            destination=destination, path=path, interface=interface, member=member, signature=signature, body=body
        )  # fmt: skip
        async with asyncio.timeout(CONNECT_WITHIN):
            reply = await bus.call(message)
        if reply is None or reply.message_type is not MessageType.METHOD_RETURN:
            raise OSError(str(reply.error_name) if reply is not None else "no reply")
        return reply

    async def _answer(self, message: Message, came: list[int]) -> None:
        """Answer ``message``, with which ``came`` descriptors: they are closed here."""
        bus = self._bus
        fds: list[int] = []
        serving = self._serving(message)
        assert serving is not None
        interface, taken, given = serving
        try:
            if message.signature != taken:
                raise Failed(
                    _E + "InvalidArgs", f"{message.member} takes arguments of types {taken or '(none)'}"
                )
            if interface == ACTORS:
                body: list[Any] = [await self._described(message, came)]
            else:
                plain, fds = await self._verb(message, interface)
                body = [_typed(value, kind) for value, kind in zip(plain, types(given), strict=True)]
            reply = Message.new_method_return(message, given, body, fds)
        except Failed as e:
            reply = Message.new_error(message, e.kind, str(e))
        except BusError as e:
            reply = Message.new_error(message, e.kind, str(e))
            if e.data:
                reply.signature, reply.body = "sa{sv}", [str(e), _typed(e.data, "a{sv}")]
                reply.signature_tree = SignatureTree._get(reply.signature)
        except Exception:
            log.exception("internal error")
            reply = Message.new_error(
                message, "dev.remit.Error.Internal", "internal error; see the daemon's log"
            )
        try:
            if bus is not None and bus.connected:
                async with asyncio.timeout(SEND_WITHIN):
                    await bus.send(reply)
        except TimeoutError:
            log.warning("the bus does not take an answer")
        finally:
            _close([*fds, *came])

    async def _verb(self, message: Message, interface: str) -> Answer:
        body = [_bare(value) for value in message.body]
        options = body[0] if message.member == "Hello" and interface == VERBS else {}
        if set(options) - {"agent", "project"} or not all(type(v) is str for v in options.values()):
            raise Failed(_E + "InvalidArgs", "options are agent and project, both text")
        caller = await self._caller(message.sender or "", **options)
        return await answer(self._daemon, caller, interface, message.member or "", body)

    async def _caller(self, sender: str, agent: str = "", project: str = "") -> Caller:
        """Return who ``sender`` is: a session, by its gateway's connection, or a program outside. Raises Failed."""
        held = self._callers.pop(sender, None)
        if held is None or not alive(held.pidfd):
            if held is not None:
                held.close()
            held = await self._held(sender)
            twin = self._callers.pop(sender, None)  # of another of its messages, meanwhile
            if twin is not None:
                twin.close()
        self._callers[sender] = held
        while len(self._callers) > MAX_CALLERS:
            self._callers.pop(next(iter(self._callers))).close()
        daemon, pid = self._daemon, held.pid
        if pid == os.getpid():
            raise Failed(_E + "AccessDenied", "remitd asks itself nothing")
        session = session_of(daemon, pid)
        if session is None or not session.confined:
            if inside_session(pid, daemon.supervisors()):
                raise Failed(_E + "AccessDenied", "the session of this program is over")
            pidfd = os.dup(held.pidfd)  # ours, whatever becomes of what is remembered
            try:
                session = await daemon.clients.session(
                    pid, held.identity, pidfd, agent=agent, project=project, assurance=held.assurance
                )
            except Refused as e:
                raise Failed(_E + "AccessDenied", str(e)) from None
            finally:
                os.close(pidfd)
        elif not may_speak(daemon, pid, session):
            raise Failed(
                _E + "AccessDenied", "which session this is is not known yet; try again in a moment"
            )
        exe, argv, _ = described(pid)
        comm = os.path.basename(argv[0]) if argv else ""
        return Caller(session.id, pid, held.identity.split(":")[1], exe, comm)

    async def _held(self, sender: str) -> _Held:
        """Return the process behind the connection ``sender``, held. Raises Failed."""
        found, fds = await self._ask("GetConnectionCredentials", sender)
        try:
            pid, uid = found.get("ProcessID"), found.get("UnixUserID")
            if uid != os.getuid() or not isinstance(pid, int):
                raise Failed(
                    _E + "AccessDenied",
                    "another user's connection, or one whose process the bus does not tell",
                )
            index = found.get("ProcessFD")
            pidfd, assurance = -1, "L0"
            if isinstance(index, int) and 0 <= index < len(fds):
                pidfd, assurance = fds.pop(index), ""
                os.set_inheritable(pidfd, False)
            else:
                pidfd = os.pidfd_open(pid)
            try:
                identity = identify(pid, pidfd)[1]
                if assurance == "L0" and await self._pid(sender) != pid:
                    raise PeerError("the connection changed hands")
            except BaseException:
                os.close(pidfd)
                raise
            return _Held(pid, pidfd, identity, assurance)
        except (PeerError, OSError, OverflowError):
            raise Failed(_E + "UnixProcessIdUnknown", f"{sender} is gone") from None
        finally:
            _close(fds)

    async def _described(self, message: Message, came: list[int]) -> dict[str, Variant]:
        subject = message.body[0]
        if message.member == "DescribeProcessFD":
            return await self.of_pidfd(came)
        if message.member == "DescribeProcess":
            return await self.of_process(subject)
        if subject.startswith("/"):
            found = await whose.file(self._daemon, os.path.normpath(subject))
            return _packed(found | {"assurance": "L3" if found["session"] else ""})
        return await self.of_name(subject)

    async def of_process(self, pid: int) -> dict[str, Variant]:
        """Return who acts in process ``pid``. Raises Failed."""
        try:
            return _packed(await describe(self._daemon, pid))
        except ProcessLookupError as e:
            raise Failed(_E + "UnixProcessIdUnknown", str(e)) from None

    async def of_pidfd(self, came: list[int]) -> dict[str, Variant]:
        """Return who acts in the process behind the one descriptor of ``came``. Raises Failed."""
        try:
            pid = pid_of(came[0]) if came else 0
        except PeerError as e:
            raise Failed(_E + "InvalidArgs", str(e)) from None
        if not pid:
            raise Failed(_E + "InvalidArgs", "one pidfd is expected, and nothing else")
        found = await self.of_process(pid)
        if not alive(came[0]):  # until now its number was its own
            raise Failed(_E + "UnixProcessIdUnknown", "the process has ended")
        return found

    async def of_name(self, name: str) -> dict[str, Variant]:
        """Return who owns the bus name ``name``. Raises Failed.

        The process is held while it is looked at, and the bus is asked again afterwards: a number that went to another
        process meanwhile, or a name that went to another owner, is no answer. A connection on which remitd calls for somebody is theirs.
        """
        called_for = self._daemon.broker.state.sessions.get(self._daemon.verbs.calling.session_of(name))
        if called_for is not None:
            return _packed(as_actor(called_for))
        pid = await self._pid(name)
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, OverflowError):
            raise Failed(_E + "UnixProcessIdUnknown", f"{name} is gone") from None
        try:
            found = await self.of_process(pid)
            if await self._pid(name) != pid:
                raise Failed(_E + "NameHasNoOwner", f"{name} changed hands")
            return found
        finally:
            os.close(pidfd)

    @property
    def connected(self) -> bool:
        """Whether a session bus is there, and with it, as far as we know, somebody's desktop."""
        return self._bus is not None

    async def _pid(self, name: str) -> int:
        found, fds = await self._ask("GetConnectionUnixProcessID", name)
        _close(fds)
        return int(found)

    async def _ask(self, member: str, name: str) -> tuple[Any, list[int]]:
        """Return what the bus itself answers about the connection ``name``, and the descriptors with it. Raises Failed."""
        bus = self._bus
        if bus is None:
            raise Failed(_E + "Disconnected", "remitd is on no session bus")
        destination, path, interface = _DRIVER
        try:
            question = Message(
                destination=destination, path=path, interface=interface, member=member, signature="s", body=[name],
                serial=bus.next_serial(),
            )  # fmt: skip
        except Exception:
            raise Failed(_E + "InvalidArgs", f"{name!r} is no bus name") from None
        self._came[question.serial] = []
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                reply = await bus.call(question)
        except TimeoutError:
            reply = None
        finally:
            fds = self._came.pop(question.serial)
        if reply is None or reply.message_type is not MessageType.METHOD_RETURN:
            _close(fds)
            text = str(reply.body[0]) if reply is not None and reply.body else "the bus does not say"
            raise Failed(str(reply.error_name) if reply is not None else _E + "Failed", text)
        return _bare(reply.body[0]), fds

    async def who(self, name: str) -> dict[str, Any]:
        """Return the wire's answer to ``who`` about a bus name. Raises Failed."""
        return {k: v.value for k, v in (await self.of_name(name)).items()} | {"entries": []}


class _Held(NamedTuple):
    """The process that made a connection to the bus. ``assurance``: L0, or "" where its program is to tell."""

    pid: int
    pidfd: int
    identity: str
    assurance: str

    def close(self) -> None:
        os.close(self.pidfd)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _bare(value: Any) -> Any:
    """Return a received value without its variants."""
    if isinstance(value, Variant):
        return _bare(value.value)
    if isinstance(value, dict):
        return {k: _bare(v) for k, v in value.items()}
    return [_bare(v) for v in value] if isinstance(value, list) else value


def _typed(value: Any, kind: str) -> Any:
    """Return ``value`` as the library wants one of type ``kind``: what a{sv} holds gets the type that fits it."""
    if kind == "aa{sv}":
        return [_typed(v, "a{sv}") for v in value]
    if kind != "a{sv}":
        return value
    return {k: found for k, v in value.items() if (found := _variant(v)) is not None}


def _variant(value: Any) -> Variant | None:
    if isinstance(value, bool):
        return Variant("b", value)
    if isinstance(value, int):
        return Variant("x", value)
    if isinstance(value, float):
        return Variant("d", value)
    if isinstance(value, str):
        return Variant(
            "s", value.encode("utf-8", "backslashreplace").decode()
        )  # no bus takes what is no Unicode
    if isinstance(value, list):
        return Variant("as", [str(v).encode("utf-8", "backslashreplace").decode() for v in value])
    return None


def _packed(found: dict[str, Any]) -> dict[str, Variant]:
    out = {
        k: Variant("s", str(found.get(k) or "")) for k in ("actor", "agent", "session", "assurance", "note")
    }
    entries = found.get("entries") or []
    if entries:
        out["time"] = Variant("d", float(entries[0]["time"]))
    out |= {k: Variant("s", escape(found[k])) for k in ("basis", "text") if found.get(k)}
    return out
