"""``dev.remit.Broker1`` on the session bus: other programs ask who it is that calls them.

    /dev/remit/Broker1   dev.remit.Broker1.Actors
        Describe(s subject) -> a{sv}          a bus name (:1.42 or well-known), or an absolute path: who wrote it last
        DescribeProcess(u pid) -> a{sv}

    actor s: human, agent, remit, or "" when nothing is known; agent s, session s: which; assurance s: L3 (started by
    remit) to L0, of an agent; note s: that nothing holds an adopted process to its name; for a path also time d: of the act,
    basis s: object, content or path, and text s: the same as a sentence (``runtime.whose``)

The one module that imports dbus-next. It takes no descriptors (none are negotiated, so the bus keeps them off), answers its own interface
and nothing else, and holds no state: a bus that goes away is looked for again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType, NameFlag, RequestNameReply
from dbus_next.message import Message
from dbus_next.signature import Variant

from remit_daemon.runtime import whose
from remit_daemon.runtime.actors import describe
from remit_daemon.wire.escape import escape

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

log = logging.getLogger("remitd.bus")

NAME, PATH, ACTORS = "dev.remit.Broker1", "/dev/remit/Broker1", "dev.remit.Broker1.Actors"
RETRY = 30.0  # seconds until a bus that is not there is tried again
CONNECT_WITHIN = 10.0  # seconds for the bus to let us in
MAX_ASKED = 64  # questions answered at once; more are told to come again
_E = "org.freedesktop.DBus.Error."
_DRIVER = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_SHOWS, _SHOWS_AT = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
_XML = f"""<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
  <interface name="{ACTORS}">
    <method name="Describe"><arg name="subject" type="s" direction="in"/><arg name="actor" type="a{{sv}}" direction="out"/></method>
    <method name="DescribeProcess"><arg name="pid" type="u" direction="in"/><arg name="actor" type="a{{sv}}" direction="out"/></method>
  </interface>
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
        self._asked: set[asyncio.Task[None]] = set()
        self._shower = ""  # the connection that shows notifications

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
        bus = await asyncio.wait_for(MessageBus(bus_address=where).connect(), CONNECT_WITHIN)
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

    def _message(self, message: Message) -> Message | bool | None:
        if message.message_type is MessageType.SIGNAL:
            self._signal(message)
            return None
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        if (
            message.path == PATH
            and message.interface in (ACTORS, None)
            and message.member in ("Describe", "DescribeProcess")
        ):
            if len(self._asked) >= MAX_ASKED:
                return Message.new_error(message, _E + "LimitsExceeded", "too many questions at once")
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)
            return True
        if message.member == "Introspect" and message.path == PATH:
            return Message.new_method_return(message, "s", [_XML])
        if message.interface == "org.freedesktop.DBus.Peer":
            return None
        return Message.new_error(message, _E + "UnknownMethod", f"{PATH} has {ACTORS} alone")

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
        reply = await asyncio.wait_for(bus.call(message), CONNECT_WITHIN)
        if reply is None or reply.message_type is not MessageType.METHOD_RETURN:
            raise OSError(str(reply.error_name) if reply is not None else "no reply")
        return reply

    async def _answer(self, message: Message) -> None:
        bus = self._bus
        try:
            found = await self._described(message)
            reply = Message.new_method_return(message, "a{sv}", [found])
        except Failed as e:
            reply = Message.new_error(message, e.kind, str(e))
        except Exception:
            log.exception("internal error")
            reply = Message.new_error(
                message, "dev.remit.Error.Internal", "internal error; see the daemon's log"
            )
        if bus is not None and bus.connected:
            await bus.send(reply)

    async def _described(self, message: Message) -> dict[str, Variant]:
        wanted = "u" if message.member == "DescribeProcess" else "s"
        if message.signature != wanted:
            raise Failed(
                _E + "InvalidArgs",
                f"{message.member} takes one argument of type {wanted}",
            )
        subject = message.body[0]
        if wanted == "u":
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

    async def of_name(self, name: str) -> dict[str, Variant]:
        """Return who owns the bus name ``name``. Raises Failed.

        The process is held while it is looked at, and the bus is asked again afterwards: a number that went to another
        process meanwhile, or a name that went to another owner, is no answer.
        """
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

    async def _pid(self, name: str) -> int:
        bus = self._bus
        if bus is None:
            raise Failed(_E + "Disconnected", "the bus is gone")
        destination, path, interface = _DRIVER
        try:
            question = Message(
                destination=destination, path=path, interface=interface, member="GetConnectionUnixProcessID", signature="s", body=[name]
            )  # fmt: skip
        except Exception:
            raise Failed(_E + "InvalidArgs", f"{name!r} is no bus name") from None
        reply = await bus.call(question)
        if reply is None or reply.message_type is not MessageType.METHOD_RETURN:
            text = str(reply.body[0]) if reply is not None and reply.body else "the bus does not say"
            raise Failed(str(reply.error_name) if reply is not None else _E + "Failed", text)
        return int(reply.body[0])

    async def who(self, name: str) -> dict[str, Any]:
        """Return the wire's answer to ``who`` about a bus name. Raises Failed."""
        return {k: v.value for k, v in (await self.of_name(name)).items()} | {"entries": []}


def _packed(found: dict[str, Any]) -> dict[str, Variant]:
    out = {
        k: Variant("s", str(found.get(k) or "")) for k in ("actor", "agent", "session", "assurance", "note")
    }
    entries = found.get("entries") or []
    if entries:
        out["time"] = Variant("d", float(entries[0]["time"]))
    out |= {k: Variant("s", escape(found[k])) for k in ("basis", "text") if found.get(k)}
    return out
