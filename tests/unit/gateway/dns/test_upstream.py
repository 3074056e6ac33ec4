"""Asking nameservers: forged and broken replies are passed over, what is cut off comes over TCP, the next one helps out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fakes.gateway import run
from fakes.zone import address, reply
from remit_daemon.gateway.dns import message
from remit_daemon.gateway.dns.message import A, MessageError
from remit_daemon.gateway.dns.upstream import NoAnswer, Upstream, server

RECORD = address("a.example", "192.0.2.1")


class Server(asyncio.DatagramProtocol):
    """Says to each datagram what ``say`` returns for it; over TCP what ``say_tcp`` does."""

    def __init__(
        self, say: Callable[[bytes], list[bytes]], say_tcp: Callable[[bytes], bytes] = lambda raw: b""
    ) -> None:
        self.say, self.say_tcp = say, say_tcp
        self.heard: list[bytes] = []

    async def start(self) -> str:
        loop = asyncio.get_running_loop()
        while True:
            self._tcp = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", port))
            except OSError:  # of UDP the port is another's
                self._tcp.close()
                continue
            return f"127.0.0.1:{port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard.append(data)
        for said in self.say(data):
            self.transport.sendto(said, addr)  # type: ignore[attr-defined]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        said = self.say_tcp(raw)
        writer.write(len(said).to_bytes(2, "big") + said if said else b"")
        writer.close()

    def close(self) -> None:
        self._udp.close()
        self._tcp.close()


def ask(*servers: Server, name: str = "a.example") -> message.Answer:
    async def test() -> message.Answer:
        places = [await s.start() for s in servers]
        try:
            return await Upstream(places, udp_wait=0.1, tcp_wait=0.1).ask(name, A)
        finally:
            for s in servers:
                s.close()

    found = run(test())
    assert isinstance(found, message.Answer)
    return found


def good(raw: bytes) -> list[bytes]:
    return [reply(raw, RECORD)]


def silent(raw: bytes) -> list[bytes]:
    return []


def test_a_plain_answer() -> None:
    one = Server(good)
    assert ask(one).answers == [RECORD]
    assert len(one.heard) == 1


def test_nothing_of_the_agents_goes_along() -> None:
    one = Server(good)
    ask(one)
    raw = one.heard[0]
    assert raw[2:] == message.write_query(0, "a.example", A)[2:]
    assert message.read_query(raw).id == int.from_bytes(raw[:2], "big")


def test_forged_and_broken_replies_are_passed_over() -> None:
    def forging(raw: bytes) -> list[bytes]:
        evil = address("a.example", "192.0.2.66")
        number = int.from_bytes(raw[:2], "big")
        return [reply(raw, evil, id=number ^ 1), reply(raw, evil, name="b.example"), reply(raw, evil)[:-1], b"", b"x", raw,
                reply(raw, evil) + b"x", reply(raw, RECORD)]  # fmt: skip

    assert ask(Server(forging)).answers == [RECORD]


def test_what_is_cut_off_comes_over_tcp() -> None:
    one = Server(lambda raw: [reply(raw, flags=0x0200)], lambda raw: reply(raw, RECORD))
    assert ask(one).answers == [RECORD]


@pytest.mark.parametrize("tcp", [b"", b"x"])
def test_the_next_server_helps_out(tcp: bytes) -> None:
    for bad in (
        silent,
        lambda raw: [reply(raw, rcode=message.SERVFAIL)],
        lambda raw: [reply(raw, flags=0x0200)],
    ):
        assert ask(Server(bad, lambda raw: tcp), Server(good)).answers == [RECORD]


def test_an_absent_name_is_an_answer() -> None:
    second = Server(good)
    assert ask(Server(lambda raw: [reply(raw, rcode=message.NXDOMAIN)]), second).rcode == message.NXDOMAIN
    assert second.heard == []


def test_nobody_answers() -> None:
    with pytest.raises(NoAnswer):
        ask(Server(silent))
    with pytest.raises(NoAnswer):
        ask()
    assert ask(Server(lambda raw: [reply(raw, rcode=message.REFUSED)])).rcode == message.REFUSED


def test_what_is_no_name_is_not_asked() -> None:
    one = Server(good)
    with pytest.raises(MessageError):
        ask(one, name="a..example")
    assert one.heard == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("1.1.1.1", ("1.1.1.1", 53)), ("1.1.1.1:5300", ("1.1.1.1", 5300)), ("fe80::1%eth0", ("fe80::1%eth0", 53)), ("[::1]:5300", ("::1", 5300)), ("::1", ("::1", 53))],
)  # fmt: skip
def test_how_servers_are_written(text: str, found: tuple[str, int]) -> None:
    assert server(text) == found


@pytest.mark.parametrize("text", ["", ":53", "1.1.1.1:0", "1.1.1.1:99999", "1.1.1.1:x"])
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(ValueError):
        server(text)


def test_every_ask_has_a_port_of_its_own() -> None:
    ports: set[int] = set()

    class Noting(Server):
        def datagram_received(self, data: bytes, addr: object) -> None:
            ports.add(addr[1])  # type: ignore[index]
            super().datagram_received(data, addr)

    async def test() -> None:
        one = Noting(good)
        upstream = Upstream([await one.start()])
        await asyncio.gather(*[upstream.ask("a.example", A) for _ in range(20)])
        one.close()

    run(test())
    assert len(ports) > 10
