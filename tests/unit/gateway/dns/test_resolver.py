"""The session's resolver against a nameserver that counts: what is refused is never asked of it."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from fakes.clock import Clock
from fakes.nameserver import FakeUpstream, address, alias, query
from remit_daemon.gateway.authority import Authority, Origin
from remit_daemon.gateway.dns import message
from remit_daemon.gateway.dns.hosts import Hosts
from remit_daemon.gateway.dns.message import AAAA, A, Answer, Record
from remit_daemon.gateway.dns.names import PIN_LEAST, PIN_LIFE, Names
from remit_daemon.gateway.dns.resolver import MAX_TTL, Resolver
from remit_daemon.gateway.dns.watch import TELLING, Watch
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records
from remit_policy.model import ALLOW, DENY, USER, Rule, Snapshot

ORIGIN = Origin(7, "77", "/usr/bin/curl", "curl")
TYPES = [A, AAAA, message.CNAME, message.MX, message.TXT, message.SRV, message.NS, message.SOA, message.PTR,
         message.HTTPS, message.SVCB, message.DNAME, 35, 43, 48, 99, 257, 65280]  # fmt: skip


class World:
    def __init__(self, directory: Path, search: tuple[str, ...] = ()) -> None:
        self.clock = Clock()
        self.journal = directory / "journal"
        (directory / "hosts").write_text(
            "10.0.0.5 printer.lan\n127.0.0.1 here\n::1 here\n10.0.0.6 denied.lan\n"
        )
        rules = [
            (ALLOW, "resolve", "*.ok.org"), (ALLOW, "resolve", "ok.org"), (ALLOW, "connect", "named.ok.org:443"),
            (DENY, "resolve", "no.org"), (DENY, "resolve", "*.no.org"), (DENY, "resolve", "denied.lan"), (ALLOW, "connect", "10.9.9.9:443"), (ALLOW, "resolve", "*.in-addr.arpa"),
        ]  # fmt: skip
        made = tuple(Rule(USER, v, op, p, source=f"user.toml:{n}") for n, (v, op, p) in enumerate(rules))
        self.authority = Authority(
            Snapshot("bench", made), Journal(str(self.journal)), clock=self.clock, minute=lambda: 0
        )
        self.up = FakeUpstream()
        self.names = Names(self.clock)
        self.resolver = Resolver(
            self.authority, self.names, Watch(self.clock), Hosts(str(directory / "hosts")), self.up, search  # type: ignore[arg-type]
        )  # fmt: skip

    async def ask(self, name: str, type: int = A, *, udp: bool = True) -> Answer:
        raw = await self.resolver.respond(query(name, type), ORIGIN, udp=udp)
        return message.read_answer(raw, 7, name.lower(), type)

    async def addresses(self, name: str, type: int = A) -> list[str]:
        return [
            str(ipaddress.ip_address(r.data))
            for r in (await self.ask(name, type)).answers
            if r.type == type
        ]

    def acts(self) -> list[tuple[str, str, str]]:
        return [(f[3], f[4], f[10]) for f, _ in records.unpack(self.journal.read_bytes()) if f[0] == "act"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("name", ["no.org", "data.no.org", "asked.example.net", "a.b.c.example.net"])
def test_what_is_not_allowed_never_leaves_the_machine(world: World, name: str, type: int) -> None:
    async def work() -> None:
        answer = await world.ask(name, type)
        assert world.up.asked == []
        if name.endswith("no.org"):
            assert (answer.rcode, answer.answers) == (message.NXDOMAIN, [])
            assert world.acts() == [("resolve", "deny", name)]
        else:
            assert answer.rcode == message.NOERROR
            assert [r.type for r in answer.answers] == ([A] if type == A else [])
        assert not await world.resolver.may_pass(query(name, type), ORIGIN)
        assert world.up.asked == []

    run(work())


@pytest.mark.parametrize("type", TYPES)
def test_an_allowed_name_is_asked_for_whatever_the_type(world: World, type: int) -> None:
    async def work() -> None:
        data = {A: b"\x5d\xb8\xd8\x22", AAAA: ipaddress.ip_address("2606:2800::1").packed,
                message.HTTPS: b"\0\1\0", message.SVCB: b"\0\1\0"}.get(type, message.wire_name("target.org"))  # fmt: skip
        if type == message.MX:
            data = b"\0\1" + data
        elif type == message.SRV:
            data = b"\0\1\0\1\0\1" + data
        elif type == message.SOA:
            data = data * 2 + b"\0" * 20
        world.up.zone["a.ok.org", type] = [Record("a.ok.org", type, 999, data)]
        answer = await world.ask("a.ok.org", type)
        assert world.up.asked == [("a.ok.org", type)]
        assert [(r.type, r.data, r.ttl) for r in answer.answers] == [(type, data, MAX_TTL)]

    run(work())


@pytest.mark.parametrize("type", [message.OPT, 0, 249, 250, 251, 252, 253, 254, 255])
def test_transfers_and_their_like_are_refused(world: World, type: int) -> None:
    async def work() -> None:
        raw = await world.resolver.respond(query("a.ok.org", type), ORIGIN, udp=True)
        assert raw[3] & 0xF == message.REFUSED
        assert world.up.asked == []

    run(work())


def test_a_name_keeps_the_addresses_that_it_had_first(world: World) -> None:
    async def work() -> None:
        world.up.has("a.ok.org", address("a.ok.org", "93.184.216.34", 0))
        assert await world.addresses("a.ok.org") == ["93.184.216.34"]
        world.up.has("a.ok.org", address("a.ok.org", "93.184.216.99", 0))
        world.clock.pass_(PIN_LIFE - 1)
        assert await world.addresses("A.OK.org") == ["93.184.216.34"]
        assert len(world.up.asked) == 1
        world.clock.pass_(2)
        assert await world.addresses("a.ok.org") == ["93.184.216.99"]

    run(work())


def test_failing_on_purpose_is_no_way_to_rebind(world: World) -> None:
    async def work() -> None:
        world.up.has("a.ok.org", address("a.ok.org", "93.184.216.34", 0))
        await world.addresses("a.ok.org")
        world.names.unpin("a.ok.org")
        world.up.has("a.ok.org", address("a.ok.org", "127.0.0.1", 0))
        assert await world.addresses("a.ok.org") == ["93.184.216.34"]
        world.clock.pass_(PIN_LEAST)
        world.names.unpin("a.ok.org")
        (found,) = await world.addresses("a.ok.org")
        assert world.names.is_stand_in(found)  # and what comes then passes the same rules

    run(work())


@pytest.mark.parametrize(
    "special",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "198.18.7.7", "224.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_a_special_address_is_not_given_out(world: World, special: str) -> None:
    async def work() -> None:
        world.up.has("a.ok.org", address("a.ok.org", special))
        (found,) = await world.addresses("a.ok.org")
        assert world.names.is_stand_in(found)
        assert found != special
        assert world.names.of(special) == ()
        assert not await world.resolver.may_pass(query("a.ok.org"), ORIGIN)
        # One among others is left out of them.
        world.up.has("b.ok.org", address("b.ok.org", special), address("b.ok.org", "93.184.216.34"))
        assert await world.addresses("b.ok.org") == ["93.184.216.34"]

    run(work())


@pytest.mark.parametrize(
    "special", ["::1", "::", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::127.0.0.1", "ff02::1"]
)  # fmt: skip
def test_nor_one_of_ipv6(world: World, special: str) -> None:
    async def work() -> None:
        world.up.has("a.ok.org", address("a.ok.org", special))
        assert await world.addresses("a.ok.org", AAAA) == []

    run(work())


def test_a_special_address_that_a_rule_names_is_given_out(world: World) -> None:
    async def work() -> None:
        world.up.has("a.ok.org", address("a.ok.org", "10.9.9.9"))
        assert await world.addresses("a.ok.org") == ["10.9.9.9"]

    run(work())


def test_only_the_questions_own_chain_is_passed_on(world: World) -> None:
    async def work() -> None:
        world.up.zone["a.ok.org", A] = [
            address("a.ok.org", "93.184.216.1"), alias("a.ok.org", "cdn.net"), address("other.org", "93.184.216.2"),
            alias("cdn.net", "edge.net"), address("edge.net", "93.184.216.3"), address("cdn.net", "93.184.216.4"),
        ]  # fmt: skip
        answer = await world.ask("a.ok.org")
        assert [(r.name, r.type) for r in answer.answers] == [
            ("a.ok.org", message.CNAME), ("cdn.net", message.CNAME), ("edge.net", A),
        ]  # fmt: skip
        assert world.names.of("93.184.216.3") == (
            "a.ok.org",
        )  # the name that was asked for, not where it led
        assert world.names.of("93.184.216.2") == ()

    run(work())


@pytest.mark.parametrize(
    "chain", [[("a.ok.org", "a.ok.org")], [("a.ok.org", "b.net"), ("b.net", "a.ok.org")]]
)
def test_a_chain_without_end_is_a_failure(world: World, chain: list[tuple[str, str]]) -> None:
    async def work() -> None:
        world.up.zone["a.ok.org", A] = [alias(*link) for link in chain]
        assert (await world.ask("a.ok.org")).rcode == message.SERVFAIL
        world.up.has("b.ok.org", address("b.ok.org", "93.184.216.34"))
        assert await world.addresses("b.ok.org") == ["93.184.216.34"]

    run(work())


def test_a_nameserver_that_is_silent_is_a_failure(world: World) -> None:
    async def work() -> None:
        world.up.silent = True
        assert (await world.ask("a.ok.org")).rcode == message.SERVFAIL
        with pytest.raises(OSError, match="no address"):
            await world.resolver.addresses("a.ok.org")

    run(work())


def test_who_asks_the_same_at_once_shares_the_answer(world: World) -> None:
    async def work() -> None:
        world.up.has("a.ok.org", address("a.ok.org", "93.184.216.34"))
        await asyncio.gather(*[world.ask("a.ok.org") for _ in range(20)])
        assert len(world.up.asked) == 1

    run(work())


def test_random_names_below_a_wildcard_are_flagged_and_asked(world: World) -> None:
    async def work() -> None:
        names = [f"{n:02d}{'abcdefghijklmnop' * 3}"[:44] + ".ok.org" for n in range(TELLING[0] + 40)]
        for name in names:
            world.up.has(name, address(name, "93.184.216.34"))
            await world.addresses(name)
        assert len(world.up.asked) == TELLING[0]
        for name in names[TELLING[0] :]:
            assert not await world.resolver.may_pass(query(name), ORIGIN)
            (found,) = await world.addresses(name)
            assert world.names.behind(found) == name  # the question is asked at its connect
            assert (await world.ask(name, message.TXT)).answers == []
        assert len(world.up.asked) == TELLING[0]
        flagged = [a for a in world.acts() if a[1] == "ask"]
        assert 0 < len(flagged) <= 32  # the ledger is not to carry the data out either
        world.resolver.cleared(names[-1])
        assert await world.addresses(names[-1]) == ["93.184.216.34"]

    run(work())


def test_the_hosts_file_and_this_machines_names(world: World) -> None:
    async def work() -> None:
        assert await world.addresses("printer.lan") == ["10.0.0.5"]
        assert await world.addresses("here", AAAA) == ["::1"]
        assert await world.addresses("localhost") == ["127.0.0.1"]
        assert await world.addresses("any.localhost", AAAA) == ["::1"]
        assert (await world.ask("denied.lan")).rcode == message.NXDOMAIN
        assert (await world.ask("printer.lan", message.TXT)).answers == []
        assert world.up.asked == []

    run(work())


@pytest.mark.parametrize("name", ["127.0.0.1", "2130706433", "0x7f.1", "017700000001", "1.2.3", "10.1"])
def test_a_spelling_of_an_address_is_no_name(world: World, name: str) -> None:
    async def work() -> None:
        answer = await world.resolver.respond(query(name), ORIGIN, udp=True)
        assert answer[3] & 0xF in (message.NXDOMAIN, message.REFUSED)
        assert struct.unpack_from(">H", answer, 6)[0] == 0
        assert world.up.asked == []

    run(work())


def test_what_a_search_list_made_does_not_hide_the_name_that_was_meant(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path, ("corp.example",))
        assert (await world.ask("www.site.net.corp.example")).rcode == message.NXDOMAIN
        assert await world.addresses("wiki.corp.example") != []  # a short name that was meant so
        assert world.up.asked == []

    run(work())


def test_reverse_names_say_what_the_session_knows(world: World) -> None:
    async def work() -> None:
        world.up.has("a.ok.org", address("a.ok.org", "93.184.216.34"))
        await world.addresses("a.ok.org")
        answer = await world.ask("34.216.184.93.in-addr.arpa", message.PTR)
        assert [r.data for r in answer.answers] == [message.wire_name("a.ok.org")]
        asked = len(world.up.asked)
        await world.ask("35.216.184.93.in-addr.arpa", message.PTR)
        assert len(world.up.asked) == asked + 1  # by policy, as any name

    run(work())


def test_faults_of_ours_are_failures_and_the_resolver_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        monkeypatch.setattr(world.names, "pinned", lambda *_: 1 / 0)
        assert (await world.ask("a.ok.org")).rcode == message.SERVFAIL
        assert not await world.resolver.may_pass(query("a.ok.org"), ORIGIN)
        for raw in (b"", b"x" * 5, b"\0" * 12, b"\xff" * 600):
            await world.resolver.respond(raw, ORIGIN, udp=True)
            assert not await world.resolver.may_pass(raw, ORIGIN)

    run(work())


def test_tables_stay_bounded(world: World) -> None:
    for n in range(20_000):
        world.names.stand_in(f"n{n}.org")
        world.names.pin(f"n{n}.org", 4, ["93.184.216.34"], 1)
        world.names.remember(f"93.184.{n // 256}.{n % 256}", "a.org")
        world.names.remember("93.184.216.34", f"n{n}.org")
    sizes = world.names.sizes()
    assert sizes["stand_ins"] <= 4096
    assert sizes["pins"] <= 4096
    assert sizes["history"] <= 8192
    assert len(world.names.of("93.184.216.34")) <= 16
