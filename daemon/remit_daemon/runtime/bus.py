"""``dev.remit.Broker1`` on the session bus: other programs ask who it is that calls them.

    /dev/remit/Broker1   dev.remit.Broker1.Actors
        Describe(s subject) -> a{sv}          a bus name (:1.42 or well-known), or an absolute path: who wrote it last
        DescribeProcess(u pid) -> a{sv}

    actor s: human, agent, remit, or "" when nothing is known; agent s, session s: which; time d: of the act (paths)

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

from remit_daemon.runtime.actors import session_of

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

log = logging.getLogger("remitd.bus")

NAME, PATH, ACTORS = "dev.remit.Broker1", "/dev/remit/Broker1", "dev.remit.Broker1.Actors"
RETRY = 30.0  # seconds until a bus that is not there is tried again
CONNECT_WITHIN = 10.0  # seconds for the bus to let us in
MAX_ASKED = 64  # questions answered at once; more are told to come again
_E = "org.freedesktop.DBus.Error."
_DRIVER = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
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
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        finally:
            self._bus = None
            bus.disconnect()  # type: ignore[no-untyped-call]

    def _message(self, message: Message) -> Message | bool | None:
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
            return self.of_process(subject)
        if subject.startswith("/"):
            self._daemon.catch_up()
            return _packed(self._daemon.ledger.who(os.path.normpath(subject)))
        return await self.of_name(subject)

    def of_process(self, pid: int) -> dict[str, Variant]:
        """Return who acts in process ``pid``. Raises Failed."""
        if pid <= 0 or not os.path.exists(f"/proc/{pid}"):
            raise Failed(_E + "UnixProcessIdUnknown", f"no process {pid}")
        session = session_of(self._daemon, pid)
        if session is None:
            return _packed({"actor": "human"})
        return _packed({"actor": "agent", "agent": session.agent, "session": session.id})

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
            found = self.of_process(pid)
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
    out = {k: Variant("s", str(found.get(k) or "")) for k in ("actor", "agent", "session")}
    entries = found.get("entries") or []
    if entries:
        out["time"] = Variant("d", float(entries[0]["time"]))
    return out
