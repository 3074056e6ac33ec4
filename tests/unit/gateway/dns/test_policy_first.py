"""The resolver: policy before any look-up, pins, stand-ins, private addresses, the watch; UDP and TCP doors."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from fakes.clock import Clock
from fakes.gateway import ORIGIN, policy, run
from fakes.zone import Read, Upstream, address, alias, query
from remit_daemon.gateway.authority import Authority, Origin
from remit_daemon.gateway.dns import message, names, stub, watch
from remit_daemon.gateway.dns.hosts import Hosts, search_list
from remit_daemon.gateway.dns.message import AAAA, HTTPS, MX, PTR, TXT, A, Record
from remit_daemon.gateway.dns.resolver import Resolver
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records

NAME = message.wire_name("b.example")
DATA = {
    A: bytes(4),
    AAAA: bytes(16),
    2: NAME,
    5: NAME,
    6: NAME + NAME + bytes(20),
    PTR: NAME,
    MX: b"\0\1" + NAME,
    33: bytes(6) + NAME,
}
TYPES = [1, 2, 5, 6, 12, 15, 16, 28, 33, 43, 46, 48, 52, 64, 65, 99, 257]
POLICY = """
[role.probe.net]
connect = { allow = ["a.example", "*.wild.example", "10.0.0.1:443"], ask = ["asked.example", "*.corp.example"], deny = ["denied.example"] }
"""


class World:
    def __init__(
        self, path: Path, text: str = POLICY, search: tuple[str, ...] = (), hosts: str = ""
    ) -> None:
        (path / "hosts").write_text(hosts)
        self.path = path
        self.clock = Clock()
        self.authority = Authority(policy(text), Journal(str(path / "journal")), clock=self.clock)
        self.upstream = Upstream()
        self.upstream.zone["a.example"] = [
            address("a.example", "192.0.2.1"),
            address("a.example", "2001:db8::1"),
        ]
        self.names = names.Names(self.clock)
        self.resolver = Resolver(
            self.authority,
            self.names,
            watch.Watch(self.clock),
            Hosts(str(path / "hosts")),
            self.upstream,
            search,  # type: ignore[arg-type]
        )

    async def ask(self, name: str, type: int = A, *, udp: bool = True) -> Read:
        raw = query(name, type)
        return Read(await self.resolver.respond(raw, ORIGIN, udp=udp), raw)

    def rows(self) -> list[tuple[str, str, str, str]]:
        found = [f for f, _ in records.unpack((self.path / "journal").read_bytes()) if f[0] == "act"]
        return [(f[3], f[4], f[10], f[14]) for f in found]


# -- policy first ----------------------------------------------------------------------------------


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize(
    "name", ["denied.example", "asked.example", "unknown.example", "x.denied.example", "wild.example"]
)
def test_nothing_leaves_for_what_is_not_allowed(tmp_path: Path, name: str, type: int) -> None:
    async def test() -> None:
        w = World(tmp_path)
        found = await w.ask(name, type)
        assert w.upstream.asked == []
        if name == "denied.example":
            assert found.rcode == message.NXDOMAIN
            assert b"refused by remit" in found.raw
        else:
            assert found.rcode == message.NOERROR
            assert [w.names.is_stand_in(a) for a in found.addresses] == ([True] if type == A else [])

    run(test())


@pytest.mark.parametrize("type", TYPES)
def test_what_is_allowed_is_looked_up_whatever_the_type(tmp_path: Path, type: int) -> None:
    async def test() -> None:
        w = World(tmp_path)
        w.upstream.zone["a.example"] = [Record("a.example", type, 300, DATA.get(type, b"\0\1\0"))]
        assert (await w.ask("a.example", type)).rcode == message.NOERROR
        assert w.upstream.asked == [("a.example", type)]

    run(test())


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "0x7f.1", "2130706433", "1.2.3", "a..example".replace("..", ".-"), "-a.example"]
)
def test_no_name_no_look_up(tmp_path: Path, name: str) -> None:
    async def test() -> None:
        w = World(tmp_path, '[role.probe.net]\nconnect = { allow = ["*"] }\n')
        assert (await w.ask(name)).rcode in (message.NXDOMAIN, message.REFUSED)
        assert w.upstream.asked == []

    run(test())


@pytest.mark.parametrize("name", ["localhost", "x.localhost", "localhost.localdomain", "ip6-localhost"])
def test_this_machine_is_never_looked_up(tmp_path: Path, name: str) -> None:
    async def test() -> None:
        w = World(tmp_path)
        assert (await w.ask(name)).addresses == ["127.0.0.1"]
        assert (await w.ask(name, AAAA)).addresses == ["::1"]
        assert (await w.ask(name, MX)).records == []
        assert w.upstream.asked == []

    run(test())


def test_the_hosts_file_unless_denied(tmp_path: Path) -> None:
    async def test() -> None:
        hosts = "10.1.1.1 box.corp.example denied.example # x\nfe80::1 box.corp.example\nnothing\n127.0.0.1 localhost evil\n"
        w = World(tmp_path, hosts=hosts)
        assert (await w.ask("box.corp.example")).addresses == ["10.1.1.1"]
        assert (await w.ask("box.corp.example", AAAA)).addresses == ["fe80::1"]
        assert (await w.ask("denied.example")).rcode == message.NXDOMAIN
        assert (await w.ask("1.1.1.10.in-addr.arpa", PTR)).records[0].data == message.wire_name(
            "box.corp.example"
        )
        assert w.upstream.asked == []
        (tmp_path / "hosts").write_text("10.2.2.2 box.corp.example other.example\n")
        assert (await w.ask("box.corp.example")).addresses == ["10.2.2.2"]

    run(test())


def test_short_names_go_on_to_what_was_meant(tmp_path: Path) -> None:
    """What a client makes of a.example with the search list does not exist; a short name below it is what is meant."""

    async def test() -> None:
        w = World(tmp_path, search=("corp.example",))
        assert (await w.ask("a.example.corp.example")).rcode == message.NXDOMAIN
        assert len((await w.ask("wiki.corp.example")).addresses) == 1
        assert w.upstream.asked == []

    run(test())
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 1.1.1.1\ndomain x.example\nsearch Corp.Example. b.example\n")
    assert search_list(str(conf)) == ("corp.example", "b.example")
    assert search_list(str(tmp_path / "none")) == ()


def test_a_spent_rate_is_a_question_at_the_connect(tmp_path: Path) -> None:
    """A query is never held: clients wait for some seconds only."""

    async def test() -> None:
        w = World(tmp_path, '[role.probe.net]\nresolve = { allow = ["*.example"], rate = "2/min" }\n')
        for name in ("a.example", "b.example"):
            w.upstream.zone[name] = [address(name, "192.0.2.1")]
            assert (await w.ask(name)).addresses == ["192.0.2.1"]
        found = await asyncio.wait_for(w.ask("c.example"), 1)
        assert w.names.is_stand_in(found.addresses[0])
        assert len(w.upstream.asked) == 2

    run(test())


# -- what comes back -------------------------------------------------------------------------------


def test_only_the_chain_of_what_was_asked(tmp_path: Path) -> None:
    async def test() -> None:
        w = World(tmp_path)
        w.upstream.zone["a.example"] = [
            address("victim.example", "192.0.2.66"), alias("a.example", "b.example"), address("b.example", "192.0.2.2"),
            alias("b.example", "c.example"), address("c.example", "192.0.2.3"), address("a.example", "192.0.2.4"),
        ]  # fmt: skip
        found = await w.ask("a.example")
        assert found.addresses == ["192.0.2.3"]
        assert [r.name for r in found.records] == ["a.example", "b.example", "c.example"]
        assert w.names.of("192.0.2.3") == ("a.example",)
        assert w.names.of("192.0.2.66") == w.names.of("192.0.2.2") == ()

    run(test())


def test_a_chain_in_a_circle(tmp_path: Path) -> None:
    async def test() -> None:
        w = World(tmp_path)
        w.upstream.zone["a.example"] = [alias("a.example", "b.example"), alias("b.example", "a.example")]
        assert (await w.ask("a.example")).rcode == message.SERVFAIL
        w.upstream.zone["a.example"] = None
        assert (await w.ask("a.example", TXT)).rcode == message.SERVFAIL

    run(test())


def test_no_rebinding(tmp_path: Path) -> None:
    async def test() -> None:
        w = World(tmp_path)
        assert (await w.ask("a.example")).addresses == ["192.0.2.1"]
        w.upstream.zone["a.example"] = [
            address("a.example", "192.0.2.99"),
            address("a.example", "2001:db8::9"),
        ]
        for _ in range(3):
            assert (await w.ask("a.example")).addresses == ["192.0.2.1"]
        assert await w.resolver.addresses("a.example") == ["2001:db8::9", "192.0.2.1"]
        assert w.upstream.asked == [("a.example", A), ("a.example", AAAA)]
        w.names.unpin("a.example")  # none could be reached, at once: it stays
        assert (await w.ask("a.example")).addresses == ["192.0.2.1"]
        w.clock.pass_(names.PIN_LEAST)
        w.names.unpin("a.example")
        assert (await w.ask("a.example")).addresses == ["192.0.2.99"]
        w.clock.pass_(names.PIN_LIFE)
        w.upstream.zone["a.example"] = [address("a.example", "192.0.2.77")]
        assert (await w.ask("a.example")).addresses == ["192.0.2.77"]

    run(test())


PRIVATE = [
    "10.0.0.2", "127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200", "224.0.0.1",
    "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.2",
    "64:ff9b::7f00:1", "64:ff9b::a00:2", "2002:7f00:1::", "::7f00:1", "64:ff9b:1::1", "fec0::1",
]  # fmt: skip


@pytest.mark.parametrize("private", PRIVATE)
def test_private_addresses_are_not_given_out(tmp_path: Path, private: str) -> None:
    async def test() -> None:
        w = World(tmp_path)
        six = ":" in private
        w.upstream.zone["a.example"] = [address("a.example", private)]
        found = await w.ask("a.example", AAAA if six else A)
        assert [w.names.is_stand_in(a) for a in found.addresses] == ([] if six else [True])
        assert private not in found.addresses or private == "198.18.0.1"
        assert w.names.of(private) == ()
        assert not await w.resolver.may_pass(query("a.example", AAAA if six else A), ORIGIN)

    run(test())


def test_beside_others_they_are_left_out_and_named_ones_are_given(tmp_path: Path) -> None:
    async def test() -> None:
        w = World(tmp_path)
        w.upstream.zone["a.example"] = [
            address("a.example", a) for a in ("10.0.0.2", "192.0.2.1", "10.0.0.1")
        ]
        assert (await w.ask("a.example")).addresses == ["192.0.2.1", "10.0.0.1"]

    run(test())


def test_clients_do_not_keep_what_may_be_taken_back(tmp_path: Path) -> None:
    async def test() -> None:
        w = World(tmp_path)
        w.upstream.zone["a.example"] = [address("a.example", "192.0.2.1", 86_400)]
        assert {r.ttl for r in (await w.ask("a.example")).records} == {60}
        assert (await w.ask("asked.example")).records[0].ttl == 5

    run(test())


def test_https_records_lose_ech(tmp_path: Path) -> None:
    async def test() -> None:
        w = World(tmp_path)
        w.upstream.zone["a.example"] = [Record("a.example", HTTPS, 9, b"\0\1\0\0\5\0\3ech")]
        assert (await w.ask("a.example", HTTPS)).records[0].data == b"\0\1\0"
        assert not await w.resolver.may_pass(query("a.example", HTTPS), ORIGIN)

    run(test())


def test_stand_ins_are_the_names(tmp_path: Path) -> None:
    async def test() -> None:
        w = World(tmp_path)
        one, two = (
            (await w.ask("asked.example")).addresses[0],
            (await w.ask("unknown.example")).addresses[0],
        )
        assert one != two
        assert (await w.ask("asked.example")).addresses == [one]
        assert [w.names.behind(a) for a in (one, two)] == ["asked.example", "unknown.example"]
        back = ".".join(reversed(one.split("."))) + ".in-addr.arpa"
        assert (await w.ask(back, PTR)).records[0].data == message.wire_name("asked.example")

    run(test())


def test_tables_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("MAX_PINS", "MAX_HISTORY", "MAX_STAND_INS", "MAX_NAMES_EACH"):
        monkeypatch.setattr(names, limit, 4)
    table = names.Names(Clock())
    for n in range(20):
        table.pin(f"{n}", 4, [f"10.0.0.{n}"] * 50, 1)
        table.remember(f"10.0.0.{n}", "x")
        table.remember("10.9.9.9", f"{n}")
        table.stand_in(f"{n}")
    assert set(table.sizes().values()) == {4}
    assert table.of("10.9.9.9") == ("19", "18", "17", "16")
    assert len(set(table._behind)) == 4


# -- the watch -------------------------------------------------------------------------------------


def secret(n: int) -> str:
    return f"{n:04d}kj3h4k5j2h3k4jh5k2j3h4k5jh2k3j4h5{n:04d}.wild.example"


def test_a_tunnel_is_stopped_and_flagged(tmp_path: Path) -> None:
    async def test() -> None:
        w = World(tmp_path)
        for n in range(200):
            w.upstream.zone[secret(n)] = [address(secret(n), "192.0.2.1")]
        for n in range(200):
            for type in (TXT, A, AAAA):  # the same name counts once
                await w.ask(secret(n), type)
        assert len({n for n, _ in w.upstream.asked}) == watch.TELLING[0]
        flagged = [r for r in w.rows() if "exfiltration" in r[3]]
        assert 0 < len(flagged) <= 32
        assert {r[:2] for r in flagged} == {("resolve", "ask")}
        assert w.names.is_stand_in((await w.ask(secret(199))).addresses[0])
        assert not await w.resolver.may_pass(query(secret(150)), ORIGIN)
        assert (await w.ask("a.example")).addresses == ["192.0.2.1"]  # other names go on
        w.resolver.cleared(secret(199))  # a person said yes at the connect
        await w.ask(secret(199))
        assert w.upstream.asked[-2:][0][0] == secret(199) or w.upstream.asked[-1][0] == secret(199)

    run(test())


def test_the_rate_comes_back(tmp_path: Path) -> None:
    clock = Clock()
    one = watch.Watch(clock)
    passed = [one.look(secret(n), True) == "" for n in range(20)]
    assert passed.count(True) == watch.TELLING[0]
    assert one.look(secret(0), True) == ""  # one that passed passes again
    clock.pass_(watch.TELLING[1] / watch.TELLING[0])
    assert [one.look(secret(n), True) == "" for n in (30, 31)] == [True, False]


def test_short_names_are_counted_too(tmp_path: Path) -> None:
    one = watch.Watch(Clock())
    assert [one.look(f"n{n}.wild.example", True) == "" for n in range(400)].count(True) == watch.ANY[0]
    assert one.look("exact.example", False) == ""


@pytest.mark.parametrize(
    ("part", "tells"),
    [
        ("www", False), ("static-assets-eu-west", False), ("objects", False), ("cdn.images.files", False), ("internationalization", False),
        ("a" * 40, True), ("d41d8cd98f00b204e9800998ecf8427e", True), ("550e8400-e29b-41d4-a716-446655440000", True),
        ("facade-decade-facade", False), ("nbswy3dpeb3w64tmmqqho33snrsccib2", True),
        (".".join(["abcdefg"] * 12), True),
    ],
)  # fmt: skip
def test_what_tells(part: str, tells: bool) -> None:
    assert watch.telling(part) == tells


# -- the doors -------------------------------------------------------------------------------------


def test_udp_and_tcp(tmp_path: Path) -> None:
    async def test() -> None:
        w = World(tmp_path)
        loop = asyncio.get_running_loop()
        w.upstream.zone["a.example"] = [address("a.example", f"192.0.2.{n}") for n in range(1, 33)]
        server, client, stranger = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))
        for sock in (server, client, stranger):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)

        async def who(port: int) -> Origin | None:
            return ORIGIN if port == client.getsockname()[1] else None

        door = stub.UdpStub(server, w.resolver, who)
        raw = query("a.example", edns=False)
        await loop.sock_sendto(stranger, raw, server.getsockname())
        for junk in (b"", b"x", raw[:-1], bytes(2000), raw):
            await loop.sock_sendto(client, junk, server.getsockname())
        got = sorted([await loop.sock_recv(client, 2000) for _ in range(3)], key=len)
        assert [g[3] & 0xF for g in got] == [message.FORMERR, message.FORMERR, message.NOERROR]
        assert Read(got[2], raw).truncated
        with pytest.raises(BlockingIOError):
            stranger.recv(10)
        here, there = socket.socketpair()
        for sock in (here, there):
            sock.setblocking(False)
        serving = asyncio.ensure_future(stub.serve_tcp(w.resolver, there, ORIGIN))
        for byte in (len(raw).to_bytes(2, "big") + raw) * 2:
            await loop.sock_sendall(here, bytes([byte]))
        reader, _ = await asyncio.open_connection(sock=here)
        for _ in range(2):
            size = int.from_bytes(await reader.readexactly(2), "big")
            assert len(Read(await reader.readexactly(size), raw).addresses) == 32
        here.sendall(b"\xff\xff")
        assert await reader.read() == b""
        await serving
        door.close()
        for sock in (client, stranger):
            sock.close()

    run(test())


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\x20abc"])
def test_a_silent_tcp_client_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(stub, "IDLE", 0.05)

    async def test() -> None:
        here, there = socket.socketpair()
        there.setblocking(False)
        with here:
            here.sendall(sent)
            await stub.serve_tcp(World(tmp_path).resolver, there, ORIGIN)
        assert there.fileno() == -1

    run(test())


def test_asks_at_once_share_one_look_up(tmp_path: Path) -> None:
    async def test() -> None:
        w = World(tmp_path)
        await asyncio.gather(*[w.ask("a.example") for _ in range(50)])
        assert len(w.upstream.asked) == 1

    run(test())
