"""The way out: which names an address stands for, special addresses, pins, and what is tried when one does not answer."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from fakes.clock import Clock
from fakes.gateway import ORIGIN, policy, run
from fakes.zone import Upstream, address
from remit_daemon.gateway import dial
from remit_daemon.gateway.authority import Authority, Refused
from remit_daemon.gateway.dial import Dialer, first_of, interleaved, plain
from remit_daemon.gateway.dns.hosts import Hosts
from remit_daemon.gateway.dns.names import Names
from remit_daemon.gateway.dns.resolver import Resolver
from remit_daemon.gateway.dns.watch import Watch
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records


class World:
    """A dialler whose connections go nowhere: ``tried`` has the addresses."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, rules: str, hosts: str = "") -> None:
        (path / "hosts").write_text(hosts)
        self.path = path
        self.authority = Authority(
            policy(f"[role.probe.net]\nconnect = {{ {rules} }}\n"), Journal(str(path / "journal"))
        )
        self.upstream = Upstream()
        self.names = Names(Clock())
        self.resolver = Resolver(
            self.authority, self.names, Watch(Clock()), Hosts(str(path / "hosts")), self.upstream
        )  # type: ignore[arg-type]
        self.dialer = Dialer(self.authority, self.resolver, {4444})
        self.tried: list[str] = []
        self.ends: list[socket.socket] = []
        monkeypatch.setattr(dial, "first_of", self._first_of)
        monkeypatch.setattr(dial.ports, "listening", lambda port: None)
        monkeypatch.setattr(dial.ports, "application", lambda port, who: "")

    async def _first_of(self, addresses: list[str], port: int) -> socket.socket:
        self.tried += addresses
        ours, theirs = socket.socketpair()
        self.ends += [ours, theirs]
        ours.getpeername = lambda: (addresses[0], port)  # type: ignore[method-assign, attr-defined]
        return ours

    def site(self, name: str, *addresses: str) -> None:
        self.upstream.zone[name] = [address(name, a) for a in addresses]

    def denials(self) -> list[tuple[str, str]]:
        return [
            (f[10], f[14])
            for f, _ in records.unpack((self.path / "journal").read_bytes())
            if f[0] == "act" and f[4] == "deny"
        ]


class _Socket(socket.socket):
    pass


@pytest.fixture(autouse=True)
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have socketpair make sockets whose methods can be replaced."""

    def made() -> tuple[socket.socket, socket.socket]:
        a, b = real()
        return _Socket(fileno=a.detach()), b

    real = socket.socketpair
    monkeypatch.setattr(socket, "socketpair", made)


SPECIAL = [
    "127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.64.0.1", "0.0.0.0", "::1", "fe80::1", "fd00::1", "::ffff:10.1.2.3",
    "64:ff9b::a01:203", "2002:a01:203::1", "198.18.0.9",
]  # fmt: skip


@pytest.mark.parametrize("where", SPECIAL)
def test_a_name_cannot_lead_into_this_machine_or_its_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async def test() -> None:
        w = World(tmp_path, monkeypatch, 'allow = ["a.example"]')
        w.site("a.example", where)
        with pytest.raises(Refused, match="leads to"):
            await w.dialer.dial("a.example", 443, ORIGIN)
        assert w.tried == []
        assert w.denials()[-1][0] == "a.example:443"

    run(test())


def test_beside_a_public_address_it_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        w = World(tmp_path, monkeypatch, 'allow = ["a.example"], deny = ["192.0.2.7"]')
        w.site("a.example", "10.0.0.1", "192.0.2.1", "192.0.2.7")
        await w.dialer.dial("a.example", 443, ORIGIN)
        assert w.tried == ["192.0.2.1"]

    run(test())


@pytest.mark.parametrize(
    "rules", ['allow = ["a.example", "10.0.0.1:443"]', 'allow = ["a.example", "10.0.0.0/8"]']
)
def test_a_rule_that_names_the_address_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules: str
) -> None:
    async def test() -> None:
        w = World(tmp_path, monkeypatch, rules)
        w.site("a.example", "10.0.0.1")
        await w.dialer.dial("a.example", 443, ORIGIN)
        assert w.tried == ["10.0.0.1"]
        if "/8" not in rules:
            with pytest.raises(Refused):
                await w.dialer.dial("a.example", 80, ORIGIN)

    run(test())


def test_the_hosts_file_is_the_administrators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        w = World(tmp_path, monkeypatch, 'allow = ["box.example", "b.example"]', "10.0.0.1 box.example\n")
        await w.dialer.dial("box.example", 443, ORIGIN)
        w.site("b.example", "10.0.0.1")  # the same address, but not the file's name
        with pytest.raises(Refused):
            await w.dialer.dial("b.example", 443, ORIGIN)
        assert w.tried == ["10.0.0.1"]

    run(test())


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "127.1",
        "[::1]",
        "::ffff:127.0.0.1",
        "localhost",
        "0.0.0.0",
    ],
)
def test_the_gateway_does_not_connect_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    async def test() -> None:
        w = World(tmp_path, monkeypatch, 'allow = ["localhost"]')
        with pytest.raises(Refused, match="itself"):
            await w.dialer.dial(host, 4444, ORIGIN)
        await w.dialer.dial(host, 4445, ORIGIN)
        assert w.tried[0] in ("127.0.0.1", "::1", "0.0.0.0")

    run(test())


@pytest.mark.parametrize(
    "host",
    ["a..example", "-a.example", "a b.example", "a.example\0.evil", "256.1.1.1", "[::1", "fe80::1%lo", ""],
)
def test_what_is_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    async def test() -> None:
        w = World(tmp_path, monkeypatch, 'allow = ["*"]')
        for work in (w.dialer.dial(host, 443, ORIGIN), w.dialer.resolve(host, ORIGIN)):
            with pytest.raises(Refused, match="no host name"):
                await work
        assert w.upstream.asked == []

    run(test())


def test_an_address_stands_for_the_names_that_led_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        w = World(tmp_path, monkeypatch, 'allow = ["a.example"], deny = ["d.example", "192.0.2.9"]')
        w.names.remember("192.0.2.1", "a.example")
        w.names.remember("192.0.2.1", "d.example")
        opened = await w.dialer.open("::ffff:192.0.2.1", 443, ORIGIN)
        assert (opened.ip, opened.names, opened.permit.resource) == (
            "192.0.2.1",
            ("a.example", "d.example"),
            "a.example:443",
        )
        w.names.remember("192.0.2.2", "d.example")
        w.names.remember("192.0.2.9", "a.example")
        for ip in ("192.0.2.2", "192.0.2.9"):
            with pytest.raises(Refused):
                await w.dialer.open(ip, 443, ORIGIN)
        w.names.remember("10.0.0.1", "a.example")
        with pytest.raises(Refused, match="leads to"):
            await w.dialer.open("10.0.0.1", 443, ORIGIN)
        assert w.tried == ["192.0.2.1"]
        assert len(w.authority._live) == 1

    run(test())


def test_an_address_without_a_name_is_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        w = World(tmp_path, monkeypatch, 'allow = ["*", "192.0.2.5"]')
        opened = await w.dialer.open("192.0.2.5", 443, ORIGIN)
        assert opened.names == ()
        asking = asyncio.ensure_future(
            w.dialer.open("192.0.2.6", 443, ORIGIN)
        )  # '*' is every name, and no address
        while not w.authority.questions.frames():
            await asyncio.sleep(0)
        assert w.authority.questions.frames()[0]["path"] == "192.0.2.6:443"
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    run(test())


def test_a_stand_in_is_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        w = World(tmp_path, monkeypatch, 'ask = ["q.example"]')
        w.site("q.example", "192.0.2.1")
        there = w.names.stand_in("q.example")
        opening = asyncio.ensure_future(w.dialer.open(there, 443, ORIGIN))
        while not (held := w.authority.questions.frames()):
            await asyncio.sleep(0)
        assert held[0]["path"] == "q.example:443"
        assert w.upstream.asked == []
        w.authority.questions.answered(held[0]["seq"], "allow", "", "p1")
        opened = await opening
        assert (opened.names, w.tried) == (("q.example",), ["192.0.2.1"])
        with pytest.raises(Refused, match="no name stands behind"):
            await w.dialer.open("198.19.255.1", 443, ORIGIN)

    run(test())


def test_what_fails_completes_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        w = World(tmp_path, monkeypatch, 'allow = ["a.example", "192.0.2.1"]')

        async def failing(addresses: list[str], port: int) -> socket.socket:
            raise OSError(errno.ECONNREFUSED, "no")

        monkeypatch.setattr(dial, "first_of", failing)
        with pytest.raises(OSError):
            await w.dialer.open("192.0.2.1", 443, ORIGIN)
        with pytest.raises(OSError, match="has no address"):
            await w.dialer.open(w.names.stand_in("a.example"), 443, ORIGIN)
        assert not w.authority._live
        done = [
            f[3].split()[0]
            for f, _ in records.unpack((tmp_path / "journal").read_bytes())
            if f[0] == "done"
        ]
        assert done == ["ECONNREFUSED", "EHOSTUNREACH"]

    run(test())


# -- several addresses -----------------------------------------------------------------------------


def test_families_take_turns() -> None:
    assert interleaved(["::1", "::2", "1.1.1.1", "::3"]) == ["::1", "1.1.1.1", "::2", "::3"]
    assert interleaved(["1.1.1.1", "::2", "1.1.1.2"]) == ["1.1.1.1", "::2", "1.1.1.2"]
    assert interleaved([]) == []


def test_the_first_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "STAGGER", 0.02)
    closed: list[str] = []
    tried: list[str] = []

    class Sock:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)

    async def connect(name: str, port: int) -> Sock:
        tried.append(name)
        if name.startswith("fail"):
            raise OSError(errno.ECONNREFUSED, "no")
        try:
            await asyncio.sleep(10 if name.startswith("slow") else 0.001)
        except asyncio.CancelledError:
            closed.append(name)
            raise
        return Sock(name)

    monkeypatch.setattr(dial, "_connect", connect)

    async def test() -> None:
        assert (await first_of(["slow", "fail", "good", "never"], 1)).name == "good"  # type: ignore[attr-defined]
        assert tried == ["slow", "fail", "good"]
        await asyncio.sleep(0)
        assert closed == ["slow"]
        with pytest.raises(ConnectionRefusedError):
            await first_of(["fail1", "fail2"], 1)
        tried.clear()
        with pytest.raises(OSError):
            await first_of([f"fail{n}" for n in range(50)], 1)
        assert len(tried) == dial.MAX_TRIED

    run(test())


@pytest.mark.parametrize(
    ("text", "found"),
    [("::ffff:1.2.3.4", "1.2.3.4"), ("0:0::1", "::1"), ("x.example", "x.example"), ("1.2.3.4", "1.2.3.4")],
)
def test_plain(text: str, found: str) -> None:
    assert plain(text) == found
