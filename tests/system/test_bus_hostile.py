"""What an agent may try on the bus: every attempt is refused or ends its own connection, and nothing but that breaks."""

from __future__ import annotations

import os
import random
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.connection import MAX_PENDING, MAX_RULES, OURS
from system.buses import BUS, BUS_PATH, Client, Proxy, RealBus, Refusal, Service, policy, until

pytestmark = pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="there is no dbus-daemon")

OPEN = "org.example.Open"
RULES = (
    f"allow see {OPEN}\nallow call {OPEN} *\nallow own org.example.Mine\nallow emit org.example.Mine *\n"
)


@pytest.fixture(scope="module")
def bus() -> Iterator[RealBus]:
    b = RealBus()
    yield b
    b.close()


@pytest.fixture
def proxy(bus: RealBus) -> Iterator[Proxy]:
    p = Proxy(bus.address, policy(RULES, hold=0.3))
    yield p
    with Client(p.address) as agent:  # whatever was done, others are served
        assert agent.bus("GetId")
    assert not [a for a in p.acts() if "fault" in a[4]]
    p.close()


@pytest.fixture
def service(bus: RealBus) -> Iterator[Service]:
    s = Service(bus.address, OPEN)
    yield s
    s.close()


# -- helpers that would act for the agent ------------------------------------------------------------

HELPERS = [
    (
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "StartTransientUnit",
    ),
    ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.DBus.Properties", "Get"),
    (
        "org.freedesktop.Flatpak",
        "/org/freedesktop/Flatpak/Development",
        "org.freedesktop.Flatpak.Development",
        "HostCommand",
    ),
    (
        "org.freedesktop.portal.Flatpak",
        "/org/freedesktop/portal/Flatpak",
        "org.freedesktop.portal.Flatpak",
        "Spawn",
    ),
    ("org.gtk.vfs.Daemon", "/org/gtk/vfs/mounttracker", "org.gtk.vfs.MountTracker", "MountLocation"),
    ("org.gnome.Terminal", "/org/gnome/Terminal/Factory0", "org.gnome.Terminal.Factory0", "CreateInstance"),
    ("org.gnome.Shell", "/org/gnome/Shell", "org.gnome.Shell", "Eval"),
    ("org.kde.konsole", "/Sessions/1", "org.kde.konsole.Session", "runCommand"),
    ("org.kde.krunner", "/App", "org.kde.krunner.App", "query"),
    ("ca.desrt.dconf", "/ca/desrt/dconf/Writer/user", "ca.desrt.dconf.Writer", "Change"),
    ("dev.remit.Approver", "/", "dev.remit.Approver", "Answer"),
]


@pytest.mark.parametrize(("name", "path", "interface", "member"), HELPERS)
def test_helpers(bus: RealBus, proxy: Proxy, name: str, path: str, interface: str, member: str) -> None:
    helper = Service(bus.address, name)
    try:
        with Client(proxy.address) as agent:
            for dest in (name, helper.me):
                for called in (interface, ""):
                    with pytest.raises(Refusal):
                        agent.call(dest, path, called, member, "x")
                agent.start(dest, path, interface, member, flags=wire.NO_REPLY)
            agent.bus("GetId")
        assert not helper.calls
    finally:
        helper.close()


@pytest.mark.parametrize(
    ("name", "path", "interface", "member"),
    [
        (
            "org.freedesktop.portal.Desktop",
            "/org/freedesktop/portal/desktop",
            "org.freedesktop.portal.OpenURI",
            "OpenURI",
        ),
        (
            "org.freedesktop.portal.Desktop",
            "/org/freedesktop/portal/desktop",
            "org.freedesktop.portal.ScreenCast",
            "CreateSession",
        ),
        (
            "org.freedesktop.portal.Desktop",
            "/org/freedesktop/portal/desktop",
            "org.freedesktop.portal.RemoteDesktop",
            "Start",
        ),
        (
            "org.freedesktop.secrets",
            "/org/freedesktop/secrets",
            "org.freedesktop.Secret.Service",
            "GetSecrets",
        ),
    ],
)
def test_what_asks(bus: RealBus, proxy: Proxy, name: str, path: str, interface: str, member: str) -> None:
    helper = Service(bus.address, name)
    try:
        with Client(proxy.address) as agent:
            serial = agent.start(name, path, interface, member, "", "https://x.example/?q=1")
            assert proxy.asked()[0]["path"] == f"{name} {interface}.{member} {path}  https://x.example/?q=1"
            with pytest.raises(Refusal, match="nobody answered"):
                agent.reply(serial)
        assert not helper.calls
    finally:
        helper.close()


def test_the_closed_system_bus(bus: RealBus) -> None:
    system = Proxy(bus.address, policy(RULES), which="system")
    service = Service(bus.address, "org.freedesktop.login1")
    try:
        with Client(system.address) as agent:
            for dest in ("org.freedesktop.login1", service.me):
                with pytest.raises(Refusal, match="call system:"):
                    agent.call(dest, "/x", "org.freedesktop.login1.Manager", "PowerOff")
        assert not service.calls
    finally:
        service.close()
        system.close()


# -- the bus itself ----------------------------------------------------------------------------------


def test_listening_to_others(bus: RealBus, proxy: Proxy, service: Service) -> None:
    with Client(proxy.address) as agent, Client(bus.address) as human:
        for rule in (
            "eavesdrop=true",
            "eavesdrop='true',type='method_call'",
            "eavesdrop=tr'ue'",
            "type='method_return'",
        ):
            with pytest.raises(Refusal):
                agent.bus("AddMatch", rule)
        for interface in ("org.freedesktop.DBus.Monitoring", ""):
            with pytest.raises(Refusal):
                agent.call(BUS, BUS_PATH, interface, "BecomeMonitor", signature="asu", body=bytes(8))
        agent.bus("AddMatch", "arg0=',eavesdrop=true,'")
        agent.bus("AddMatch", "")
        human.call(OPEN, "/x", "a.b", "Secret", "token")
        assert agent.quiet(lambda m: m.head.member == "Secret" or m.head.type == wire.RETURN)


def test_names_of_others(bus: RealBus, proxy: Proxy) -> None:
    with Client(proxy.address) as agent:
        for name in ("org.freedesktop.systemd1", "org.freedesktop.Notifications", "org.example.Mine.Not"):
            serial = agent.start(BUS, BUS_PATH, BUS, "RequestName", signature="su", body=_request(name, 7))
            with pytest.raises(Refusal):
                agent.reply(serial)
    with Client(bus.address) as human:
        assert "org.freedesktop.Notifications" not in wire.strings(human.bus("ListNames"))


def _request(name: str, flags: int) -> bytes:
    body = wire.pack_strings(name)
    return body + bytes(-len(body) % 4) + struct.pack("<I", flags)


def test_a_forged_sender(bus: RealBus, proxy: Proxy) -> None:
    with Client(proxy.address) as agent, Client(bus.address) as human:
        human.bus("AddMatch", "type='signal',interface='org.x.I'")
        agent.own("org.example.Mine")
        agent.send(
            wire.SIGNAL, path="/x", interface="org.x.I", member="S", sender="org.freedesktop.systemd1"
        )
        assert human.signal("org.x.I", "S").head.sender == agent.me


def test_forged_replies(bus: RealBus, proxy: Proxy) -> None:
    silent = Client(bus.address)
    silent.own("org.example.Silent")
    with Client(proxy.address) as agent, Client(bus.address) as human, silent:
        agent.own("org.example.Mine")
        serial = human.start("org.example.Silent", "/x", "a.b", "Wait")
        for kind in (wire.RETURN, wire.ERROR):
            agent.send(
                kind,
                dest=human.me,
                reply=serial,
                strings=("forged",),
                error="a.b" if kind == wire.ERROR else "",
            )
        agent.bus("GetId")
        assert human.quiet(lambda m: m.head.type in (wire.RETURN, wire.ERROR))


def test_replies_that_nobody_asked_for(bus: RealBus, proxy: Proxy, service: Service) -> None:
    with Client(proxy.address) as agent:
        service.client.send(wire.RETURN, dest=agent.me, reply=77, strings=("x",))
        service.client.send(wire.ERROR, dest=agent.me, reply=1, error="a.b", strings=("x",))
        agent.bus("GetId")
        assert agent.quiet(lambda m: m.head.type in (wire.RETURN, wire.ERROR))


# -- protocol ----------------------------------------------------------------------------------------


def _call(serial: int = 5, **fields: object) -> bytes:
    return wire.build(
        wire.CALL, serial, **{"path": "/x", "interface": "a.b", "member": "C", "dest": OPEN} | fields
    )  # type: ignore[arg-type]


BREAKING = {
    "rubbish": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(64),
    "oversized": b"l\1\0\1" + struct.pack("<III", 1 << 27, 1, 16) + bytes(16),
    "oversized fields": b"l\1\0\1" + struct.pack("<III", 0, 1, 1 << 27) + bytes(16),
    "wrong order": b"B" + _call()[1:],
    "serial 0": _call(0),
    "our serials": _call(OURS),
    "the last serial": _call(0xFFFFFFFF),
    "our serial of a kind that is known": _call(5) + _call(OURS + 1),
    "version 2": _call()[:3] + b"\2" + _call()[4:],
    "nested": wire.build(
        wire.CALL, 5, path="/x", member="C", dest=OPEN, signature="a" * 33 + "s", body=bytes(8)
    ),
    "a bad destination": _call(dest="org..x"),
    "a bad path": _call(path="/x/../y"),
    "local": _call(interface="org.freedesktop.DBus.Local", member="Disconnected"),
    "half a string": _call(
        dest=BUS, interface=BUS, member="GetNameOwner", signature="s", body=b"\xff\xff\xff\x7fabc\0"
    ),
    "no UTF-8": _call(
        dest=BUS, interface=BUS, member="AddMatch", signature="s", body=b"\2\0\0\0\xff\xfe\0"
    ),
    "a Hello that wants no answer": b"",
}


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_the_connection(proxy: Proxy, name: str) -> None:
    raw = BREAKING[name]
    with Client(proxy.address, hello=bool(raw)) as agent:
        agent.sock.sendall(
            raw or wire.build(wire.CALL, 1, path=BUS_PATH, interface=BUS, member="Hello", dest=BUS, flags=1)
        )
        assert agent.ended()
    assert any(a[1:3] == ("deny", "refused") and "malformed" in a[4] for a in proxy.acts())


def test_before_hello(proxy: Proxy, service: Service) -> None:
    with Client(proxy.address, hello=False) as agent:
        agent.sock.sendall(_call())
        with pytest.raises((Refusal, EOFError, ConnectionError)):
            agent.reply(5)
    assert not service.calls


def test_a_second_hello_and_a_serial_twice(proxy: Proxy, bus: RealBus) -> None:
    silent = Client(bus.address)
    silent.own(OPEN)
    with Client(proxy.address) as agent, silent:
        with pytest.raises(Refusal):
            agent.bus("Hello")
        agent.sock.sendall(_call(500) + _call(500))
        with pytest.raises(Refusal, match="serial in use"):
            agent.reply(500)


def test_cut_at_the_end(proxy: Proxy) -> None:
    raw = _call(signature="s", body=wire.pack_strings("x" * 100))
    for cut in range(1, len(raw), 7):
        with Client(proxy.address) as agent:
            agent.sock.sendall(raw[:cut])


def test_damaged_messages(proxy: Proxy, service: Service) -> None:
    """Whatever passes is a message, and to a name that is allowed."""
    chance = random.Random(11)
    good = [
        _call(signature="s", body=wire.pack_strings("abc")),
        wire.build(
            wire.CALL,
            6,
            path=BUS_PATH,
            interface=BUS,
            member="AddMatch",
            dest=BUS,
            signature="s",
            body=wire.pack_strings("type='signal'"),
        ),
        wire.build(wire.SIGNAL, 7, path="/x", interface="a.b", member="S", big=True),
        wire.build(wire.RETURN, 8, reply=3, dest=":1.1"),
    ]
    for _ in range(150):
        with Client(proxy.address) as agent:
            for _ in range(20):
                data = bytearray(chance.choice(good))
                for _ in range(chance.randint(1, 4)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
                try:
                    agent.sock.sendall(data)
                except OSError:
                    break
    assert {m.head.dest for m in service.calls} <= {OPEN, service.me}


def test_floods(proxy: Proxy, bus: RealBus) -> None:
    silent = Client(bus.address)
    silent.own(OPEN)
    with Client(proxy.address) as agent, silent:
        drain = threading.Thread(target=_drain, args=(silent.sock,))
        drain.start()
        for start in range(1000, 1000 + MAX_PENDING + 10, 50):
            agent.sock.sendall(b"".join(_call(start + i) for i in range(50)))
        error = agent.wait(lambda m: m.head.type == wire.ERROR)
        assert error.head.error.endswith("LimitsExceeded")
        last = 0
        for i in range(MAX_RULES + 1):
            last = agent.start(BUS, BUS_PATH, BUS, "AddMatch", f"arg0='{i}'", serial=100_000 + i)
        with pytest.raises(Refusal, match="too many match rules"):
            agent.reply(last, 20)
    silent.sock.close()
    drain.join()


def _drain(sock: socket.socket) -> None:
    try:
        while sock.recv(1 << 16):
            pass
    except OSError:
        pass


def test_many_connections(proxy: Proxy, service: Service) -> None:
    agents = [Client(proxy.address) for _ in range(150)]
    for agent in agents:
        assert agent.call(OPEN, "/x", "a.b", "C")
    for agent in agents:
        agent.close()


def test_a_handshake_that_stops(proxy: Proxy) -> None:
    stuck = []
    for said in (b"", b"\0", b"\0AUTH EXTERNAL", b"\0AUTH EXTERNAL\r\n"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(proxy.path)
        sock.sendall(said)
        stuck.append(sock)
    with Client(proxy.address) as agent:
        assert agent.bus("GetId")
    for sock in stuck:
        sock.close()


# -- a bus that lies -----------------------------------------------------------------------------------


class FalseBus:
    """Shakes hands, answers Hello, then says ``lie``."""

    def __init__(self, directory: Path, lie: Callable[[str], bytes]) -> None:
        self.address = f"unix:path={directory}/false"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{directory}/false")
        self._listener.listen(1)
        self._lie = lie
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        sock, _ = self._listener.accept()
        said = b""
        for answer in (b"OK 00\r\n", b"AGREE_UNIX_FD\r\n"):
            while b"\r\n" not in said:
                said += sock.recv(4096)
            said = said.partition(b"\r\n")[2]
            sock.sendall(answer)
        while b"Hello" not in said:
            said += sock.recv(4096)
        to = {"dest": ":1.1", "sender": BUS}
        sock.sendall(
            wire.build(wire.RETURN, 1, reply=1, signature="s", body=wire.pack_strings(":1.1"), **to)
            + wire.build(wire.RETURN, 2, reply=OURS + 1, **to)
            + wire.build(
                wire.RETURN, 3, reply=OURS + 2, signature="as", body=wire.pack_list([":1.1", BUS]), **to
            )
            + self._lie(":1.1")
        )
        time.sleep(0.3)
        sock.close()
        self._listener.close()


LIES = {
    "rubbish": b"rubbish, and more of it than a header has",
    "nobody's message": wire.build(wire.SIGNAL, 9, path="/x", interface="a.b", member="C"),
    "half a change": wire.build(wire.SIGNAL, 9, path="/x", interface=BUS, member="NameOwnerChanged", sender=BUS, signature="s", body=wire.pack_strings("a.b")),
    "oversized": b"l\1\0\1" + struct.pack("<III", 1 << 27, 1, 16),
    "descriptors that do not come": wire.build(wire.SIGNAL, 9, path="/x", interface="a.b", member="C", sender=":1.2", fds=3),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_bus_that_lies(tmp_path: Path, name: str) -> None:
    liar = FalseBus(tmp_path, lambda me: LIES[name])
    proxy = Proxy(liar.address, policy(RULES))
    try:
        with Client(proxy.address, hello=False) as agent:
            agent.start(BUS, BUS_PATH, BUS, "Hello")
            assert agent.ended()
        assert any("malformed, from the bus" in a[4] for a in proxy.acts())
    finally:
        proxy.close()


def test_no_bus(tmp_path: Path) -> None:
    proxy = Proxy(f"unix:path={tmp_path}/none", policy(RULES))
    try:
        with pytest.raises((EOFError, OSError)):
            Client(proxy.address)
        until(lambda: any("cannot be reached" in a[4] for a in proxy.acts()))
    finally:
        proxy.close()


def test_no_descriptor_is_left(proxy: Proxy, service: Service) -> None:
    time.sleep(0.1)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        with Client(proxy.address) as agent:
            agent.start(OPEN, "/x", "a.b", "C", "x", files=(0, 1), flags=wire.NO_REPLY)
            with pytest.raises(Refusal):
                agent.call("org.freedesktop.systemd1", "/x", "a.b", "C", "x", files=(0, 1))
            socket.send_fds(agent.sock, [_call(9, fds=3)[:30]], [0, 1, 2])
    until(lambda: len(service.calls) >= 30)
    for message in service.calls:
        for fd in message.files:
            os.close(fd)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_no_more_connections_than_so_many(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit_daemon.gateway.dbus.serve.MAX_CONNECTIONS", 3)
    three = [Client(proxy.address) for _ in range(3)]
    with pytest.raises((EOFError, OSError)):
        Client(proxy.address)
    assert any("too many connections" in a[4] for a in proxy.acts())
    for client in three:
        client.close()

    def again() -> bool:
        try:
            Client(proxy.address).close()
        except (EOFError, OSError):
            return False
        return True

    until(again)


def test_no_more_unfinished_bytes_than_so_many(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit_daemon.gateway.dbus.link.MAX_BUFFERED", 1 << 20)
    part = _call(signature="ay", body=bytes(1 << 23))
    with Client(proxy.address) as one, Client(proxy.address) as two:
        one.sock.sendall(part[: 600 << 10])
        two.sock.sendall(part[: 300 << 10])
        try:
            two.sock.sendall(bytes(300 << 10))
        except OSError:
            pass  # it ended already
        assert two.ended()
    assert any("unfinished messages" in a[4] for a in proxy.acts())


def test_a_message_of_the_greatest_size(proxy: Proxy, service: Service) -> None:
    body = (64 << 20).to_bytes(4, "little") + bytes(64 << 20)
    with Client(proxy.address) as agent:
        agent.sock.settimeout(60)
        assert agent.reply(agent.start(OPEN, "/x", "a.b", "Big", signature="ay", body=body), 60)
    assert len(service.calls[0].data) > 64 << 20
