"""The resolver's UDP and TCP doors and the way to the nameservers, over loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fakes.nameserver import address, query, reply
from remit_daemon.gateway.authority import Origin
from remit_daemon.gateway.dns import message
from remit_daemon.gateway.dns.stub import MAX_QUERY, UdpStub, serve_tcp
from remit_daemon.gateway.dns.upstream import NoAnswer, Upstream, server

ORIGIN = Origin(7, "77", "/usr/bin/curl", "curl")
ADDRESS = [address("a.org", "93.184.216.34")]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


class Echo:
    """A resolver that answers with the query, marked by the door it came by."""

    async def respond(self, raw: bytes, origin: Origin, *, udp: bool) -> bytes:
        assert origin is ORIGIN
        return b"" if raw == b"silence" else (b"udp " if udp else b"tcp ") + raw


def test_udp_answers_those_who_are_announced_alone() -> None:
    async def work() -> None:
        with (
            socket.socket(type=socket.SOCK_DGRAM) as client,
            socket.socket(type=socket.SOCK_DGRAM) as stranger,
        ):
            for sock in (client, stranger):
                sock.bind(("127.0.0.1", 0))
                sock.setblocking(False)
            known = client.getsockname()[1]

            async def who(port: int) -> Origin | None:
                return ORIGIN if port == known else None

            door = socket.socket(type=socket.SOCK_DGRAM)
            door.bind(("127.0.0.1", 0))
            where = door.getsockname()
            stub = UdpStub(door, Echo(), who)  # type: ignore[arg-type]
            stranger.sendto(b"query", where)
            client.sendto(b"silence", where)
            client.sendto(b"query", where)
            assert await asyncio.get_running_loop().sock_recv(client, 100) == b"udp query"
            with pytest.raises(BlockingIOError):
                stranger.recv(100)
            stub.close()

    run(work())


def test_tcp_answers_one_query_after_another_at_any_split() -> None:
    async def work() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        serving = asyncio.ensure_future(serve_tcp(Echo(), theirs, ORIGIN))  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        for byte in b"\0\5first\0\6second":
            await loop.sock_sendall(ours, bytes([byte]))
            await asyncio.sleep(0)
        got = b""
        while len(got) < 23:
            got += await loop.sock_recv(ours, 100)
        assert got == b"\0\x09tcp first\0\x0atcp second"
        ours.close()
        await serving

    run(work())


@pytest.mark.parametrize(
    "raw", [b"\xff\xff", (MAX_QUERY + 1).to_bytes(2, "big"), b"\0\7silence", b"\0", b""]
)
def test_tcp_ends_where_nothing_is_to_be_said(raw: bytes) -> None:
    async def work() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        serving = asyncio.ensure_future(serve_tcp(Echo(), theirs, ORIGIN))  # type: ignore[arg-type]
        ours.sendall(raw)
        if len(raw) < 2:
            ours.shutdown(socket.SHUT_WR)
        assert await asyncio.get_running_loop().sock_recv(ours, 100) == b""
        await serving
        ours.close()

    run(work())


class Nameserver(asyncio.DatagramProtocol):
    """Answers each datagram with what ``answers`` makes of it, and TCP with ``over_tcp``."""

    def __init__(self, answers: Callable[[bytes], list[bytes]]) -> None:
        self.answers = answers
        self.seen: list[bytes] = []
        self.senders: list[int] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.seen.append(data)
        self.senders.append(addr[1])
        for raw in self.answers(data):
            self.transport.sendto(raw, addr)


async def nameserver(answers: Callable[[bytes], list[bytes]]) -> tuple[Nameserver, str]:
    made = Nameserver(answers)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: made, local_addr=("127.0.0.1", 0)
    )
    return made, "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])


def test_forged_answers_are_passed_over_until_the_real_one_comes() -> None:
    def answers(raw: bytes) -> list[bytes]:
        forged = bytes([raw[0] ^ 1]) + raw[1:]
        other = message.write_query(int.from_bytes(raw[:2], "big"), "b.org", message.A)
        return [b"", b"x", raw, reply(forged, ADDRESS), reply(other, ADDRESS), reply(raw, ADDRESS)]

    async def work() -> None:
        made, where = await nameserver(answers)
        found = await Upstream([where]).ask("a.org", message.A)
        assert found.answers == ADDRESS
        assert len(made.seen) == 1

    run(work())


def test_each_query_has_its_own_number_and_port() -> None:
    async def work() -> None:
        made, where = await nameserver(lambda raw: [reply(raw, ADDRESS)])
        upstream = Upstream([where])
        for _ in range(16):
            await upstream.ask("a.org", message.A)
        assert len({raw[:2] for raw in made.seen}) > 8
        assert len(set(made.senders)) > 8

    run(work())


@pytest.mark.parametrize("rcode", [message.SERVFAIL, message.REFUSED, message.NOTIMP])
def test_the_next_server_is_asked_when_one_fails(rcode: int) -> None:
    async def work() -> None:
        _, bad = await nameserver(lambda raw: [reply(raw, [], rcode)])
        _, good = await nameserver(lambda raw: [reply(raw, ADDRESS)])
        assert (await Upstream(["nonsense:port", bad, good]).ask("a.org", message.A)).answers == ADDRESS
        assert (await Upstream([bad]).ask("a.org", message.A)).rcode == rcode

    run(work())


def test_a_silent_server_is_given_up() -> None:
    async def work() -> None:
        made, where = await nameserver(lambda raw: [])
        with pytest.raises(NoAnswer):
            await Upstream([where], udp_wait=0.02).ask("a.org", message.A)
        assert len(made.seen) == 2
        with pytest.raises(NoAnswer):
            await Upstream([]).ask("a.org", message.A)

    run(work())


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_cut_off_is_asked_over_tcp(whole: bool) -> None:
    async def work() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            size = int.from_bytes(await reader.readexactly(2), "big")
            raw = reply(await reader.readexactly(size), ADDRESS)
            raw = len(raw).to_bytes(2, "big") + raw
            writer.write(raw if whole else raw[:-1])
            writer.close()

        tcp = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = tcp.sockets[0].getsockname()[1]
        made = Nameserver(lambda raw: [reply(raw, [], truncated=True)])
        await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: made, local_addr=("127.0.0.1", port)
        )
        upstream = Upstream([f"127.0.0.1:{port}"])
        if whole:
            assert (await upstream.ask("a.org", message.A)).answers == ADDRESS
        else:
            with pytest.raises(NoAnswer):
                await upstream.ask("a.org", message.A)
        tcp.close()

    run(work())


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("1.1.1.1", ("1.1.1.1", 53)), ("1.1.1.1:5300", ("1.1.1.1", 5300)), ("fe80::1%eth0", ("fe80::1%eth0", 53)),
        ("[::1]:5300", ("::1", 5300)), ("[::1]", ("::1", 53)),
    ],
)  # fmt: skip
def test_how_a_nameserver_is_written(text: str, where: tuple[str, int]) -> None:
    assert server(text) == where


@pytest.mark.parametrize("text", ["", ":53", "1.1.1.1:0", "1.1.1.1:65536", "1.1.1.1:x", "[]:53"])
def test_what_is_no_nameserver(text: str) -> None:
    with pytest.raises(ValueError, match=r"no nameserver|invalid literal"):
        server(text)


def test_a_query_is_what_clients_send() -> None:
    assert message.read_query(query("a.org")).name == "a.org"
