"""Notifications on a real bus: shown, closed, and denied by the click of the very server that showed them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message

from fakes.machine import Machine
from system.buses import RealBus

pytestmark = pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="there is no dbus-daemon")

NAME, PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"


class Server:
    """What shows notifications on a desktop, as far as remit is concerned."""

    def __init__(self) -> None:
        self.shown: list[list[Any]] = []
        self.closed: list[int] = []

    async def start(self, address: str) -> None:
        self.bus = await MessageBus(bus_address=address).connect()
        self.bus.add_message_handler(self._message)
        await self.bus.request_name(NAME)

    def _message(self, message: Message) -> Message | None:
        if message.message_type is not MessageType.METHOD_CALL or message.interface != NAME:
            return None
        if message.member == "Notify":
            self.shown.append(message.body)
            return Message.new_method_return(message, "u", [message.body[1] or 40 + len(self.shown)])
        self.closed.append(message.body[0])
        return Message.new_method_return(message)

    async def click(self, bus: MessageBus, ident: int, action: str) -> None:
        await bus.send(Message.new_signal(PATH, NAME, "ActionInvoked", "us", [ident, action]))


@pytest.fixture
def bus() -> Iterator[RealBus]:
    found = RealBus()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def machine(bus: RealBus) -> Iterator[Machine]:
    root = tempfile.mkdtemp(prefix="remit-")
    found = Machine(root)
    found.env |= {"DBUS_SESSION_BUS_ADDRESS": bus.address}
    found.env.pop("DISPLAY", None)
    found.env.pop("WAYLAND_DISPLAY", None)
    try:
        yield found
        found.stop()
    finally:
        if found.process is not None and found.process.poll() is None:
            found.process.kill()
            found.process.wait()
        shutil.rmtree(root, ignore_errors=True)


async def until(what: Callable[[], object], text: str) -> None:
    for _ in range(500):
        if what():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not in time: {text}")


async def scene(machine: Machine, address: str) -> None:
    server = Server()
    await server.start(address)
    await asyncio.to_thread(machine.start)
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    sup.ask("/srv/<b>secret</b>")
    await until(lambda: server.shown, "it is shown")
    (app, replaces, _, summary, body, actions, _, _) = server.shown[0]
    assert (app, replaces, summary, actions) == ("remit", 0, "claude asks", ["deny", "Deny"])
    assert "read /srv/&lt;b&gt;secret&lt;/b&gt;" in body
    stranger = await MessageBus(bus_address=address).connect()
    await server.click(stranger, 41, "deny")
    await server.click(server.bus, 99, "deny")
    await server.click(server.bus, 41, "allow")
    await asyncio.sleep(0.2)
    assert [p["state"] for p in person.call("prompts")] == ["open"], "none of these is a click on ours"
    await server.click(server.bus, 41, "deny")
    await until(lambda: not person.call("prompts"), "it is denied")
    (answered,) = person.call("prompts", all=True)
    assert (answered["answer"]["verdict"], answered["answer"]["via"]) == ("deny", "notification")
    await until(lambda: server.closed == [41], "it is closed")
    stranger.disconnect()
    server.bus.disconnect()


def test_a_click_denies_and_only_the_servers_own(machine: Machine, bus: RealBus) -> None:
    asyncio.run(scene(machine, bus.address))
