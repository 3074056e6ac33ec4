"""The verb ``call``, with a real bus: what comes back, whom it reaches, and what it does not do for anybody."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.machine import Machine
from remit_client import AppError, Denied, Remit, RemitError
from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.classify import ACCESS_DENIED, NO_OWNER, SERVICE_UNKNOWN
from remit_daemon.runtime.calling import MAX_CALLS_EACH
from remit_daemon.wire.rpc import BUSY, INVALID_PARAMS
from system.buses import BUS, Client, RealBus, Refusal, Service, until

pytestmark = pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="there is no dbus-daemon")

APP, OTHER, HIDDEN, ASKED = "org.test.App", "org.test.Other", "org.hide.App", "org.ask.App"
POLICY = """
version = 1
[agent.tool]
match = { name = "tool*" }
roles = ["tool"]
[role.tool]
inherits = ["base"]
[role.tool.dbus."org.test.App"]
see = { allow = ["*"] }
call = { allow = ["org.test.Face.*"], deny = ["org.test.Face.Bad", "org.test.Face.Open@/x(/secret*)"] }
[role.tool.dbus."org.test.Other"]
call = { deny = ["org.test.Other.*"] }
[role.tool.dbus."org.test.Start"]
call = { allow = ["*"] }
[role.tool.dbus."org.hide.App"]
see = { deny = ["*"] }
call = { deny = ["*"] }
"""


class World:
    def __init__(self, root: str) -> None:
        self.bus = RealBus()
        self.machine = Machine(root)
        self.machine.env["DBUS_SESSION_BUS_ADDRESS"] = self.bus.address
        self.machine.policy(POLICY)
        self.machine.start()
        until(self.owned, 10)

    def owned(self) -> bool:
        with Client(self.bus.address) as client:
            try:
                client.bus("GetNameOwner", "dev.remit.Broker1")
            except Refusal:
                return False
        return True

    def remit(self) -> Remit:
        return Remit(self.machine.paths.agent, agent="tool")

    def rows(self, **how: Any) -> list[dict[str, Any]]:
        return list(self.machine.person().call("log", op="call", **how))

    def fds(self) -> int:
        assert self.machine.process is not None
        return len(os.listdir(f"/proc/{self.machine.process.pid}/fd"))

    def close(self) -> None:
        self.machine.stop()
        self.bus.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    found = World(str(tmp_path_factory.mktemp("calling")))
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def app(world: World) -> Iterator[Service]:
    found = Service(world.bus.address, APP)
    try:
        yield found
    finally:
        found.close()


def call(world: World, member: str = "Do", *args: str, name: str = APP, **more: Any) -> dict[str, Any]:
    face, _, member = ("org.test.Face." + member if "." not in member else member).rpartition(".")
    params = {"name": name, "path": "/x", "interface": face, "member": member, "args": list(args)}
    with world.remit() as remit:
        return dict(remit.call("call", params | {"signature": "s" * len(args)} | more))


def test_a_call_is_made_and_recorded_and_told_for_whom(world: World, app: Service) -> None:
    found = call(world, "Do", "one")
    assert found == {"signature": "s", "args": ["org.test.Face.Do"], "descriptors": 0, "sender": app.me}
    (message,) = app.calls
    assert wire.leading(message) == ("one",)
    assert message.head.dest == app.me, "to the program that was decided on, whoever has the name by now"
    row = world.rows()[-1]
    assert (row["verdict"], row["outcome"], row["path"]) == ("allow", "ok", f"{APP} org.test.Face.Do /x")
    assert (row["actor"], row["agent"], row["pid"]) == ("agent", "tool", os.getpid())


def test_the_program_that_is_called_learns_who_calls(world: World) -> None:
    told: list[wire.Message] = []
    with Client(world.bus.address) as client:
        client.own(APP)
        thread = threading.Thread(target=lambda: call(world, "Do"))
        thread.start()
        message = client.wait(lambda m: m.head.type == wire.CALL)
        told.append(
            client.call(
                "dev.remit.Broker1", "/dev/remit/Broker1", "dev.remit.Broker1.Actors", "Describe", message.head.sender
            )
        )  # fmt: skip
        client.send(wire.RETURN, dest=message.head.sender, reply=message.serial)
        thread.join(10)
    raw = bytes(told[0].body)
    assert b"agent\0" in raw
    assert b"tool\0" in raw
    assert world.machine.person().call("sessions")[-1]["id"].encode() in raw


def test_what_policy_denies_does_not_arrive(world: World, app: Service) -> None:
    for member, args in (("Bad", ()), ("Open", ("/secret/key",))):
        with pytest.raises(Denied) as no:
            call(world, member, *args)
        assert no.value.data["verdict"] == "deny"
        assert "test.toml" in no.value.data["rule"]
    assert app.calls == []
    assert call(world, "Open", "/public")["args"]


def test_what_policy_asks_is_asked(world: World) -> None:
    service = Service(world.bus.address, ASKED)
    try:
        with pytest.raises(Denied) as no:
            call(world, "Do", "it", name=ASKED, wait=0, purpose="to see")
        assert no.value.undecided
        person = world.machine.person()
        (prompt,) = [p for p in person.call("prompts") if p["id"] == no.value.data["prompt"]]
        assert (prompt["path"], prompt["purpose"]) == (f"{ASKED} org.test.Face.Do /x it", "to see")
        assert service.calls == []
        person.call("answer", id=prompt["id"], verdict="allow", **{"for": "session"})
        assert call(world, "Do", "it", name=ASKED)["args"] == ["org.test.Face.Do"]
    finally:
        service.close()


@pytest.mark.parametrize(
    "name",
    [
        "org.freedesktop.systemd1", "org.gtk.vfs.Daemon", "org.freedesktop.Flatpak", "org.gnome.Terminal.Factory",
        "org.gnome.Shell", "ca.desrt.dconf", "org.freedesktop.portal.Flatpak", "dev.remit.Anything",
    ],
)  # fmt: skip
def test_what_acts_for_whoever_asks_is_closed(world: World, name: str) -> None:
    service = Service(world.bus.address, name)
    try:
        for dest in (name, service.me):
            with pytest.raises((Denied, AppError)):
                call(world, name + ".Run", name=dest, wait=0)
        assert service.calls == []
    finally:
        service.close()


@pytest.mark.parametrize("name", ["org.freedesktop.secrets", "org.freedesktop.portal.Desktop"])
def test_what_a_person_is_asked_about_waits(world: World, name: str) -> None:
    service = Service(world.bus.address, name)
    try:
        with pytest.raises(Denied) as no:
            call(world, name + ".Get", name=name, wait=0)
        assert no.value.undecided
        assert service.calls == []
    finally:
        service.close()


@pytest.mark.parametrize(
    "member", ["RequestName", "AddMatch", "UpdateActivationEnvironment", "GetConnectionCredentials", "Monitoring.BecomeMonitor"]
)  # fmt: skip
def test_the_bus_itself_and_remit_are_called_for_nobody(world: World, member: str) -> None:
    with pytest.raises(Denied):
        call(world, BUS + "." + member, name=BUS)


def test_remit_under_its_unique_name(world: World) -> None:
    with Client(world.bus.address) as client:
        (me,) = wire.leading(client.bus("GetNameOwner", "dev.remit.Broker1"))
    for name in ("dev.remit.Broker1", me):
        with pytest.raises(Denied):
            call(world, "dev.remit.Broker1.WhoAmI", name=name, path="/dev/remit/Broker1")
        with pytest.raises(Denied):  # nor by what only looks
            call(world, "org.freedesktop.DBus.Introspectable.Introspect", name=name)


def test_a_name_that_may_not_be_seen_is_not_there(world: World) -> None:
    said = []
    for present in (True, False):
        service = Service(world.bus.address, HIDDEN) if present else None
        for start in (False, True):
            with pytest.raises(AppError) as no:
                call(world, name=HIDDEN, start=start)
            said.append((str(no.value), no.value.data))
        if service is not None:
            with pytest.raises(AppError) as no:
                call(world, name=service.me)
            assert HIDDEN not in str(no.value)
            assert HIDDEN not in str(no.value.data)
            service.close()
            assert service.calls == []
    assert said[:2] == said[2:]
    assert [data["error"] for _, data in said[:2]] == [NO_OWNER, SERVICE_UNKNOWN]


def test_a_rule_about_another_name_of_the_same_program_counts(world: World) -> None:
    service = Service(world.bus.address, APP, OTHER)
    try:
        for dest in (APP, service.me):
            with pytest.raises(Denied):
                call(world, OTHER + ".Do", name=dest, wait=0)
        assert service.calls == []
    finally:
        service.close()


def test_a_name_that_changes_hands_while_a_person_is_asked(world: World) -> None:
    first = Service(world.bus.address, "org.ask.Mover")
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call(world, OTHER + ".Do", name="org.ask.Mover", wait=20))
        except RemitError as e:
            found.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    person = world.machine.person()
    (prompt,) = until(lambda: [p for p in person.call("prompts") if "Mover" in p["path"]], 10)
    first.close()
    second = Service(
        world.bus.address, OTHER, "org.ask.Mover"
    )  # a program whose calls of this interface are denied
    person.call("answer", id=prompt["id"], verdict="allow", **{"for": "once"})
    thread.join(10)
    second.close()
    assert isinstance(found[0], Denied), found
    assert second.calls == []


def test_nothing_starts_unless_it_is_said(world: World, tmp_path: Any) -> None:
    flag = tmp_path / "started"
    world.bus.activatable("org.test.Start", f'/bin/sh -c "touch {flag}; exit 1"')
    with pytest.raises(AppError) as no:
        call(world, name="org.test.Start")
    assert no.value.data["error"] == NO_OWNER
    assert not flag.exists()
    with pytest.raises(AppError):  # it ends without taking the name
        call(world, name="org.test.Start", start=True)
    assert flag.exists()
    world.bus.activatable("org.hide.App", f'/bin/sh -c "touch {flag}2; exit 1"')
    with pytest.raises(AppError):
        call(world, name=HIDDEN, start=True)
    assert not os.path.exists(f"{flag}2")


def test_an_error_comes_with_its_name(world: World) -> None:
    with Client(world.bus.address) as client:
        client.own(APP)
        found: list[AppError] = []

        def run() -> None:
            with pytest.raises(AppError) as no:
                call(world)
            found.append(no.value)

        thread = threading.Thread(target=run)
        thread.start()
        message = client.wait(lambda m: m.head.type == wire.CALL)
        client.send(
            wire.ERROR,
            dest=message.head.sender,
            reply=message.serial,
            error="org.test.No",
            strings=("why",),
        )
        thread.join(10)
    assert (str(found[0]), found[0].data["error"]) == ("why", "org.test.No")
    assert world.rows()[-1]["outcome"] == "ok org.test.No"


def test_a_program_that_floods_or_calls_back_is_not_served(world: World) -> None:
    with Client(world.bus.address) as client:
        client.own(APP)
        found: list[Any] = []

        def run() -> None:
            try:
                found.append(call(world))
            except RemitError as e:
                found.append(e)

        thread = threading.Thread(target=run)
        thread.start()
        message = client.wait(lambda m: m.head.type == wire.CALL)
        with pytest.raises(Refusal) as no:
            client.call(message.head.sender, "/x", "a.b", "C")
        assert no.value.name == ACCESS_DENIED
        for _ in range(1200):
            client.send(wire.SIGNAL, dest=message.head.sender, path="/x", interface="a.b", member="S")
        thread.join(10)
    assert isinstance(found[0], AppError)
    assert "flood" in str(found[0])


def test_descriptors_of_a_reply_are_closed_and_counted(world: World) -> None:
    before = world.fds()
    null = os.open(os.devnull, os.O_RDONLY)
    with Client(world.bus.address) as client:
        client.own(APP)
        for _ in range(20):
            found: list[Any] = []
            thread = threading.Thread(target=lambda into=found: into.append(call(world)))
            thread.start()
            message = client.wait(lambda m: m.head.type == wire.CALL)
            client.send(
                wire.RETURN, dest=message.head.sender, reply=message.serial, files=(null,), signature="h", body=bytes(4)
            )  # fmt: skip
            thread.join(10)
            assert found[0]["descriptors"] == 1
    os.close(null)
    until(lambda: world.fds() <= before + 2, 5)


def test_what_is_no_call_is_said(world: World) -> None:
    for how in (
        {"name": "no name"}, {"path": "x"}, {"interface": "x"}, {"member": "a.b"}, {"signature": "zz"},
        {"signature": "h", "args": [0]}, {"signature": "s"}, {"args": [1]}, {"name": "system:org.x.Y"},
    ):  # fmt: skip
        params = {"name": APP, "path": "/x", "interface": "a.b", "member": "C"} | how
        with world.remit() as remit, pytest.raises(RemitError) as no:
            remit.call("call", params)
        assert no.value.code == INVALID_PARAMS, how


def test_one_program_does_not_take_all(world: World) -> None:
    threads = []
    with Client(world.bus.address) as client:
        client.own(APP)
        for _ in range(MAX_CALLS_EACH):
            thread = threading.Thread(target=lambda: call(world))
            thread.start()
            threads.append(thread)
        messages = [client.wait(lambda m: m.head.type == wire.CALL) for _ in threads]
        with pytest.raises(RemitError) as no:
            call(world)
        assert no.value.code == BUSY
        for message in messages:
            client.send(wire.RETURN, dest=message.head.sender, reply=message.serial)
        for thread in threads:
            thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
