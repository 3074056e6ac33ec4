"""The session's resolver: policy first; a name that is not allowed is never looked up, and an answer stays what it was."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from remit_daemon.gateway.authority import Authority, Origin
from remit_daemon.gateway.dial import Dialer
from remit_daemon.gateway.dns import message
from remit_daemon.gateway.dns.hosts import Hosts
from remit_daemon.gateway.dns.message import AAAA, CNAME, HTTPS, PTR, TXT, A, Answer, Record
from remit_daemon.gateway.dns.names import PIN_LEAST, PIN_LIFE, STAND_INS, Names
from remit_daemon.gateway.dns.resolver import Resolver
from remit_daemon.gateway.dns.upstream import NoAnswer
from remit_daemon.gateway.dns.watch import TELLING, Watch, parent_of, telling
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records
from remit_policy.model import USER, VERDICTS, Rule, Snapshot

ORIGIN = Origin(7, "99", "/usr/bin/x", "x")
RULES = """
allow resolve ok.example
allow resolve *.wild.example
allow connect ok.example:443
allow connect *.wild.example:443
deny resolve no.example
deny resolve *.no.example
allow resolve inner.example
allow connect inner.example:443
"""


class Nameserver:
    """Answers from a table; ``asked`` is all that left the machine."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.table: dict[tuple[str, int], list[Record]] = {}

    def has(self, name: str, *addresses: str) -> None:
        for family, type in ((4, A), (6, AAAA)):
            found = [ipaddress.ip_address(a) for a in addresses]
            self.table[name, type] = [
                Record(name, type, 300, a.packed) for a in found if a.version == family
            ]

    async def ask(self, name: str, type: int) -> Answer:
        self.asked.append((name, type))
        if name == "silent.wild.example":
            raise NoAnswer
        known = self.table.get((name, type))
        return Answer(message.NOERROR if known is not None else message.NXDOMAIN, False, known or [], [])


class World:
    def __init__(self, directory: Path, policy: str = RULES) -> None:
        self.now = 1000.0
        rules = [
            Rule(USER, VERDICTS.index(verdict), op, pattern, source=f"test:{n}")
            for n, (verdict, op, pattern) in enumerate((x.split() for x in policy.strip().splitlines()), 1)
        ]
        self.journal = directory / "journal"
        self.authority = Authority(Snapshot("t", tuple(rules), hold=20), Journal(str(self.journal)))
        self.asked: list[dict[str, Any]] = []
        self.authority.say = self.asked.append
        self.server = Nameserver()
        (directory / "hosts").write_text("192.168.7.7 box.example no.example\n127.0.0.1 localhost here\n")
        self.names = Names(lambda: self.now)
        watch = Watch(lambda: self.now)
        upstream: Any = self.server
        hosts = Hosts(str(directory / "hosts"))
        self.resolver = Resolver(self.authority, self.names, watch, hosts, upstream, ("corp.example",))
        self.dialer = Dialer(self.authority, self.resolver)

    async def look(self, name: str, type: int = A, *, udp: bool = True) -> tuple[int, list[str]]:
        """Return the response code and what the answer's records say."""
        raw = await self.resolver.respond(message.write_query(5, name, type), ORIGIN, udp=udp)
        found = message.read_answer(raw, 5, name, type)
        return found.rcode, [
            str(ipaddress.ip_address(r.data))
            if r.type in (A, AAAA)
            else message.read_name(r.data)
            if r.type in (CNAME, PTR)
            else r.data.hex()
            for r in found.answers
        ]

    def rows(self) -> list[list[str]]:
        found = [f for f, _ in records.unpack(self.journal.read_bytes()) if f[0] == "act"]
        return [[f[3], f[4], f[5], f[10], f[14]] for f in found]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(act: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(act, 20))


def is_stand_in(address: str) -> bool:
    return ipaddress.ip_address(address) in STAND_INS


@pytest.mark.parametrize("type", [A, AAAA, TXT, HTTPS, message.MX, message.SRV, message.NS, 99])
def test_no_lookup_leaves_for_a_name_that_is_not_allowed(world: World, type: int) -> None:
    async def act() -> None:
        assert (await world.look("no.example", type))[0] == message.NXDOMAIN
        assert (await world.look("deep.er.no.example", type))[0] == message.NXDOMAIN
        rcode, found = await world.look("unknown.example", type)
        assert (rcode, len(found)) == (message.NOERROR, int(type == A))
        assert all(map(is_stand_in, found))
        assert not world.server.asked

    run(act())
    assert ["resolve", "deny", "refused", "no.example"] in [r[:4] for r in world.rows()]


def test_what_is_allowed_is_looked_up_whatever_the_type(world: World) -> None:
    async def act() -> None:
        world.server.has("ok.example", "203.0.113.9", "2001:db8::9")
        world.server.table["ok.example", TXT] = [Record("ok.example", TXT, 9, b"\2hi")]
        assert await world.look("ok.example") == (0, ["203.0.113.9"])
        assert await world.look("ok.example", AAAA) == (0, ["2001:db8::9"])
        assert await world.look("ok.example", TXT) == (0, [b"\2hi".hex()])
        assert await world.look("x.wild.example") == (message.NXDOMAIN, [])
        assert await world.look("silent.wild.example") == (message.SERVFAIL, [])

    run(act())


def test_a_name_keeps_its_addresses(world: World) -> None:
    """What its owner says later changes nothing, until the pin's end; the history knows what led there."""

    async def act() -> None:
        world.server.has("ok.example", "203.0.113.9")
        assert (await world.look("ok.example"))[1] == ["203.0.113.9"]
        world.server.has("ok.example", "203.0.113.66")
        world.now += PIN_LIFE - 1
        assert (await world.look("ok.example"))[1] == ["203.0.113.9"]
        world.names.unpin("ok.example")
        assert (await world.look("ok.example"))[1] == ["203.0.113.66"]
        assert world.names.of("203.0.113.9") == ("ok.example",)

    run(act())


def test_failing_on_purpose_is_no_way_to_rebind(world: World) -> None:
    async def act() -> None:
        world.server.has("ok.example", "203.0.113.9")
        await world.look("ok.example")
        world.server.has("ok.example", "203.0.113.66")
        world.now += PIN_LEAST - 1
        world.names.unpin("ok.example")
        assert (await world.look("ok.example"))[1] == ["203.0.113.9"]

    run(act())


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "198.18.0.5", "224.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_a_name_is_not_led_into_this_machine_or_its_network(world: World, address: str) -> None:
    """The address does not stand in the answer, and a connect to the name does not go there."""

    async def act() -> None:
        from remit_daemon.gateway.authority import Refused

        world.server.has("ok.example", address)
        rcode, found = await world.look("ok.example")
        assert rcode == 0
        assert address not in found
        assert all(map(is_stand_in, found))
        with pytest.raises((Refused, OSError)):
            await world.dialer.dial("ok.example", 443, ORIGIN)

    run(act())


def test_good_addresses_stay_beside_bad_ones(world: World) -> None:
    async def act() -> None:
        world.server.has("ok.example", "10.0.0.1", "203.0.113.9", "127.0.0.1")
        assert (await world.look("ok.example"))[1] == ["203.0.113.9"]

    run(act())


def test_an_address_that_a_rule_names_is_given(tmp_path: Path) -> None:
    world = World(tmp_path, RULES + "allow connect 10.0.0.0/8\n")

    async def act() -> None:
        world.server.has("inner.example", "10.0.0.1")
        assert (await world.look("inner.example"))[1] == ["10.0.0.1"]

    run(act())


def test_only_the_chain_of_the_question_counts(world: World) -> None:
    """Records of other names beside the answer are left out: no name is told by another's server."""

    async def act() -> None:
        world.server.table["ok.example", A] = [
            Record("ok.example", CNAME, 9, message.wire_name("edge.net.example")),
            Record("edge.net.example", A, 9, ipaddress.ip_address("203.0.113.1").packed),
            Record("bank.example", A, 9, ipaddress.ip_address("203.0.113.2").packed),
        ]
        assert (await world.look("ok.example"))[1] == ["edge.net.example", "203.0.113.1"]
        assert world.names.of("203.0.113.1") == ("ok.example",)
        assert world.names.of("203.0.113.2") == ()

    run(act())


def test_a_chain_without_end_is_a_failure(world: World) -> None:
    async def act() -> None:
        world.server.table["ok.example", A] = [
            Record("ok.example", CNAME, 9, message.wire_name("ok.example"))
        ]
        assert await world.look("ok.example") == (message.SERVFAIL, [])

    run(act())


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.1", "10.0.0.1", "1.2.3.4.5", "256.1"]
)
def test_an_address_is_no_name(world: World, name: str) -> None:
    async def act() -> None:
        assert (await world.look(name))[0] in (message.NXDOMAIN, message.REFUSED)
        assert not world.server.asked

    run(act())


def test_this_machine_and_its_hosts_file(world: World) -> None:
    async def act() -> None:
        assert (await world.look("localhost"))[1] == ["127.0.0.1"]
        assert (await world.look("sub.localhost", AAAA))[1] == ["::1"]
        assert (await world.look("box.example"))[1] == ["192.168.7.7"]
        assert await world.look("no.example") == (message.NXDOMAIN, [])  # it is in the file, and denied
        assert await world.look("7.7.168.192.in-addr.arpa", PTR) == (0, ["box.example", "no.example"])
        assert (await world.look("9.113.0.203.in-addr.arpa", PTR))[0] == message.NXDOMAIN
        assert not world.server.asked

    run(act())


def test_what_a_search_list_makes_is_not_asked_for(world: World) -> None:
    async def act() -> None:
        assert await world.look("unknown.example.corp.example") == (message.NXDOMAIN, [])
        rcode, found = await world.look("printer.corp.example")
        assert rcode == 0
        assert is_stand_in(found[0])

    run(act())


def test_a_stand_in_is_asked_for_at_the_connect(world: World) -> None:
    async def act() -> None:
        _, (address,) = await world.look("unknown.example")
        opening = asyncio.ensure_future(world.dialer.open(address, 443, ORIGIN))
        while not world.asked:
            await asyncio.sleep(0)
        assert world.asked[0]["path"] == "unknown.example:443"
        assert not world.server.asked
        world.authority.questions.answered(world.asked[0]["seq"], "deny", "", "p1")
        from remit_daemon.gateway.authority import Refused

        with pytest.raises(Refused):
            await opening
        assert (await world.look("unknown.example"))[1] == [address]
        with pytest.raises(Refused):
            await world.dialer.open("198.19.255.250", 443, ORIGIN)  # a stand-in that nobody was given

    run(act())


def test_service_records_lead_nobody_past_us(world: World) -> None:
    async def act() -> None:
        data = b"\0\1\0" + b"".join(
            struct.pack(">HH", k, len(v)) + v for k, v in ((1, b"\2h2"), (4, b"\x0a\0\0\1"), (5, b"k"))
        )
        world.server.table["ok.example", HTTPS] = [Record("ok.example", HTTPS, 9, data)]
        assert (await world.look("ok.example", HTTPS))[1] == [data[:10].hex()]

    run(act())


def test_names_that_carry_data_out_are_stopped(world: World) -> None:
    """Under a wildcard that allows them: some pass, the rest is flagged in the ledger and leaves no more."""
    labels = [f"{n:02x}" + "mzxw6ytboi4dqmbrgezdgnbvgy3tqojq" for n in range(TELLING[0] * 3)]

    async def act() -> None:
        for label in labels:
            rcode, found = await world.look(f"{label}.wild.example")
            assert rcode == message.NXDOMAIN or is_stand_in(found[0])
        assert len(world.server.asked) == TELLING[0]
        assert (await world.look(f"{labels[0]}.wild.example"))[
            0
        ] == message.NXDOMAIN  # passed once, passes again

    run(act())
    flagged = [r for r in world.rows() if "possible exfiltration" in r[4]]
    assert len(flagged) == TELLING[0] * 2
    assert all(r[:3] == ["resolve", "ask", "refused"] for r in flagged)


def test_many_plain_names_are_no_tunnel_until_they_are_many(world: World) -> None:
    async def act() -> None:
        for n in range(200):
            await world.look(f"host{n}.wild.example")
        assert len(world.server.asked) == 200

    run(act())
    assert not [r for r in world.rows() if "exfiltration" in r[4]]


@pytest.mark.parametrize(
    ("open_part", "tells"),
    [
        ("www", False), ("files-eu-west-1", False), ("d111111abcdef8", False), ("static.production.assets", False),
        ("mzxw6ytboi4dqmbrgezdgnbvgy3tqojq", True), ("a" * 40, True), (".".join(["abcdefgh"] * 10), True),
        ("4f2a9c81d3e7b605", True),
    ],
)  # fmt: skip
def test_what_tells(open_part: str, tells: bool) -> None:
    assert telling(open_part) is tells


def test_whose_domain_it_is() -> None:
    assert parent_of("a.b.example.com") == ("a.b", "example.com")
    assert parent_of("a.example.co.uk") == ("a", "example.co.uk")


def test_what_may_go_past_us(world: World) -> None:
    """musl asks every nameserver itself: only what is allowed outright and has nothing to be taken out."""

    async def act() -> None:
        world.server.has("ok.example", "203.0.113.9")
        world.server.has("inner.example", "10.0.0.1")

        async def may(name: str, type: int = A) -> bool:
            return await world.resolver.may_pass(message.write_query(5, name, type), ORIGIN)

        assert await may("ok.example")
        assert world.names.of("203.0.113.9") == ("ok.example",)
        assert await may("ok.example", TXT)
        for name in ("no.example", "unknown.example", "inner.example", "box.example", "127.0.0.1"):
            assert not await may(name)
        assert not await may("ok.example", HTTPS)
        assert not await world.resolver.may_pass(b"\0" * 20, ORIGIN)

    run(act())


def test_the_same_question_is_asked_once(world: World) -> None:
    async def act() -> None:
        world.server.has("ok.example", "203.0.113.9")
        await asyncio.gather(*(world.look("ok.example") for _ in range(20)))
        assert world.server.asked == [("ok.example", A)]

    run(act())


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from remit_daemon.gateway.dns import names as module

    monkeypatch.setattr(module, "MAX_STAND_INS", 8)
    monkeypatch.setattr(module, "MAX_PINS", 8)
    monkeypatch.setattr(module, "MAX_HISTORY", 8)
    names = Names()
    given: Callable[[int], str] = lambda n: names.stand_in(f"n{n}.example")  # noqa: E731
    first = given(0)
    for n in range(20):
        given(n)
        names.pin(f"n{n}.example", 4, [f"203.0.113.{n}"], 60)
        names.remember(f"203.0.113.{n}", f"n{n}.example")
    assert names.sizes() == {"pins": 8, "history": 8, "stand_ins": 8}
    assert names.behind(first) == ""
    assert given(0) != first  # an address that was another's is not given again at once
