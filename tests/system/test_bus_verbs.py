"""The verbs on the session bus, with a real dbus-daemon: who calls, what comes back, and no descriptor left behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from fakes.machine import Machine
from system.buses import Client, RealBus, Refusal, Service, until
from unit.runtime.test_verbs import POLICY as VERBS_POLICY

POLICY = (
    VERBS_POLICY
    + """
[role.tool.dbus."org.test.*"]
call = { allow = ["*"] }
"""
)
NAME, PATH, VERBS = "dev.remit.Broker1", "/dev/remit/Broker1", "dev.remit.Broker1"
CALLS = 400  # with four descriptors each; a leak of one of a hundred shows


class World:
    def __init__(self) -> None:
        self.bus = RealBus()
        self.root = tempfile.mkdtemp(prefix="remit-")
        self.machine = Machine(self.root)
        self.machine.env["DBUS_SESSION_BUS_ADDRESS"] = self.bus.address
        self.machine.policy(POLICY.replace("ROOT", self.root))
        for place in ("project/secret", "asked"):
            os.makedirs(f"{self.root}/{place}")
        for place in ("project/a.txt", "project/secret/key", "asked/file"):
            with open(f"{self.root}/{place}", "w") as f:
                f.write(place)
        self.machine.start()
        until(self.owned, 10)

    def owned(self) -> bool:
        with Client(self.bus.address) as client:
            try:
                client.call(
                    "org.freedesktop.DBus",
                    "/org/freedesktop/DBus",
                    "org.freedesktop.DBus",
                    "GetNameOwner",
                    NAME,
                )
            except Refusal:
                return False
        return True

    def close(self) -> None:
        self.machine.stop()
        self.bus.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def fds(self) -> int:
        assert self.machine.process is not None
        return len(os.listdir(f"/proc/{self.machine.process.pid}/fd"))

    def run(self, what: Callable[[MessageBus], Coroutine[Any, Any, Any]]) -> Any:
        """Run ``what`` with a connection that has said who it is."""

        async def main() -> Any:
            bus = await MessageBus(bus_address=self.bus.address, negotiate_unix_fd=True).connect()
            try:
                await call(bus, "Hello", "a{sv}", [{"agent": Variant("s", "tool")}])
                return await what(bus)
            finally:
                bus.disconnect()  # type: ignore[no-untyped-call]

        return asyncio.run(main())


async def call(
    bus: MessageBus, member: str, signature: str, body: list[Any], interface: str = VERBS
) -> Message:
    """Return the reply. Raises Refusal."""
    reply = await bus.call(
        Message(
            destination=NAME, path=PATH, interface=interface, member=member, signature=signature, body=body
        )
    )
    assert reply is not None
    if reply.message_type is MessageType.ERROR:
        raise Refusal(str(reply.error_name), str(reply.body[0]))
    return reply


def plain(found: dict[str, Variant]) -> dict[str, Any]:
    return {k: v.value for k, v in found.items()}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    found = World()
    try:
        yield found
    finally:
        found.close()


def test_the_same_words_as_on_the_socket(world: World) -> None:
    root = world.root

    async def talk(bus: MessageBus) -> None:
        me = plain((await call(bus, "WhoAmI", "", [])).body[0])
        assert (me["agent"], me["confined"], me["assurance"] in ("L0", "L1", "L2")) == ("tool", False, True)
        found = plain(
            (await call(bus, "Check", "ssa{sv}", ["read", root + "/project/secret/key", {}])).body[0]
        )
        assert (found["verdict"], "test.toml" in found["rule"]) == ("deny", True)
        options = {"purpose": Variant("s", "to see"), "wait": Variant("u", 0)}
        told = plain(
            (await call(bus, "Request", "ssa{sv}", ["read", root + "/asked/file", options])).body[0]
        )
        assert told["verdict"] == "ask"
        (prompt,) = [p for p in world.machine.person().call("prompts") if p["id"] == told["prompt"]]
        assert (prompt["purpose"], prompt["pid"], prompt["confined"]) == ("to see", os.getpid(), False)
        reply = await call(bus, "Open", "ssa{sv}", [root + "/project/a.txt", "", {}])
        (fd,) = reply.unix_fds
        assert (reply.signature, reply.body[0], os.read(fd, 99)) == (
            "sh",
            root + "/project/a.txt",
            b"project/a.txt",
        )
        os.close(fd)
        (denial,) = [d for d in (await call(bus, "Denials", "u", [10])).body[0] if d["op"].value == "read"]
        assert denial["outcome"].value == "expired"
        metadata = json.loads((await call(bus, "Call", "ss", ["metadata", ""], VERBS + ".Token")).body[0])
        assert metadata["issuer"].startswith("urn:remit:")

    world.run(talk)


@pytest.mark.parametrize(
    ("member", "signature", "body", "error"),
    [
        ("Open", "ssa{sv}", ["ROOT/project/secret/key", "read", {}], "dev.remit.Error.Denied"),
        ("Open", "ssa{sv}", ["relative", "read", {}], "InvalidArgs"),
        ("Open", "ssa{sv}", ["/x", "fly", {}], "InvalidArgs"),
        ("Open", "s", ["/x"], "InvalidArgs"),
        ("Request", "ssa{sv}", ["read", "/x", {"nothing": Variant("s", "")}], "InvalidArgs"),
        ("Request", "ssa{sv}", ["read", "/x", {"wait": Variant("s", "")}], "InvalidArgs"),
        ("Request", "ssa{sv}", ["fly", "/x", {}], "InvalidArgs"),
        ("Hello", "a{sv}", [{"agent": Variant("s", "another")}], "AccessDenied"),
        ("Hello", "a{sv}", [{"pid": Variant("u", 1)}], "InvalidArgs"),
        ("Nothing", "", [], "UnknownMethod"),
    ],
)
def test_refusals_have_words(
    world: World, member: str, signature: str, body: list[Any], error: str
) -> None:
    body = [b.replace("ROOT", world.root) if isinstance(b, str) else b for b in body]

    async def talk(bus: MessageBus) -> None:
        with pytest.raises(Refusal) as no:
            await call(bus, member, signature, body)
        assert error in no.value.name
        assert no.value.text

    world.run(talk)


def test_a_program_is_called_over_the_bus(world: World) -> None:
    service = Service(world.bus.address, "org.test.App")

    async def talk(bus: MessageBus) -> None:
        address = ["org.test.App", "/x", "org.test.Face", "Do"]
        reply = await call(bus, "Call", "ssssssa{sv}", [*address, "s", '["one"]', {}])
        assert (reply.signature, reply.body) == ("ssu", ["s", '["org.test.Face.Do"]', 0])
        for args, options, error in (
            ("{}", {}, "InvalidArgs"),
            ("[1]", {}, "InvalidArgs"),
            ("[", {}, "InvalidArgs"),
            ('["x"]', {"fly": Variant("b", True)}, "InvalidArgs"),
        ):
            with pytest.raises(Refusal) as no:
                await call(bus, "Call", "ssssssa{sv}", [*address, "s", args, options])
            assert error in no.value.name
        for name, error in (
            ("org.freedesktop.DBus", "Error.Denied"),
            (NAME, "Error.Denied"),
            ("org.test.None", "Error.App"),
        ):
            with pytest.raises(Refusal) as no:
                await call(bus, "Call", "ssssssa{sv}", [name, "/x", "org.test.Face", "Do", "", "", {}])
            assert error in no.value.name

    try:
        world.run(talk)
        assert service.members() == ["org.test.Face.Do"]
    finally:
        service.close()


def test_it_says_what_it_has(world: World) -> None:
    async def talk(bus: MessageBus) -> Any:
        found = await bus.introspect(NAME, PATH)
        return {i.name: [m.name for m in i.methods] for i in found.interfaces}

    found = world.run(talk)
    assert set(found["dev.remit.Broker1"]) >= {
        "Hello",
        "WhoAmI",
        "Check",
        "Request",
        "Intend",
        "Open",
        "Denials",
    }
    assert "Call" in found["dev.remit.Broker1.Token"]


def test_descriptors_that_nobody_asked_for_are_closed(world: World) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    before = world.fds()
    with Client(world.bus.address) as client:
        for n in range(CALLS):
            interface, member = ((VERBS, "WhoAmI"), (VERBS, "Nothing"), ("a.b", "C"), (VERBS, "Check"))[
                n % 4
            ]
            try:
                client.call(NAME, PATH, interface, member, files=(null,) * 4)
            except Refusal:
                pass
    os.close(null)
    until(lambda: world.fds() <= before + 2, 5)  # the bus's one connection, and a caller's pidfd


def test_descriptors_that_are_handed_over_are_not_kept(world: World) -> None:
    async def talk(bus: MessageBus) -> None:
        for _ in range(50):
            reply = await call(bus, "Open", "ssa{sv}", [world.root + "/project/a.txt", "read", {}])
            os.close(reply.unix_fds[0])

    world.run(talk)
    before = world.fds()
    world.run(talk)
    until(lambda: world.fds() <= before + 1, 5)


def test_a_process_that_is_held_is_described(world: World) -> None:
    async def described(bus: MessageBus, *fds: int) -> Message:
        reply = await bus.call(
            Message(
                destination=NAME, path=PATH, interface=VERBS + ".Actors", member="DescribeProcessFD", signature="h", body=[0],
                unix_fds=list(fds),
            )
        )  # fmt: skip
        assert reply is not None
        return reply

    async def talk(bus: MessageBus) -> None:
        before = world.fds()
        mine, null = os.pidfd_open(os.getpid()), os.open(os.devnull, os.O_RDONLY)
        child = os.fork()
        if not child:
            os._exit(0)
        ended = os.pidfd_open(child)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert "has ended" in (await described(bus, ended)).body[0], (
            "its number is still its own, and it acts no more"
        )
        os.waitpid(child, 0)
        found = plain((await described(bus, mine)).body[0])
        assert (found["actor"], found["session"] == plain((await call(bus, "WhoAmI", "", [])).body[0])["session"]) == (
            "agent", True,
        )  # fmt: skip
        assert "no pidfd" in (await described(bus, null)).body[0]
        assert "has ended" in (await described(bus, ended)).body[0]
        assert "one pidfd" in (await described(bus, mine, mine)).body[0]
        for fd in (mine, null, ended):
            os.close(fd)
        until(lambda: world.fds() <= before + 2, 5)

    world.run(talk)
