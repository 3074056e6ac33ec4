"""The doors: an agent's connect from its announcement to its end, and who is not let in. Sockets on loopback."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from remit_daemon.gateway import accept as module
from remit_daemon.gateway import parts
from remit_daemon.gateway.accept import Doors
from remit_daemon.gateway.authority import Authority, Origin, Permit, Refused
from remit_daemon.gateway.context import Context
from remit_daemon.gateway.dial import Opened
from remit_daemon.gateway.journal import Journal
from remit_policy.model import ALLOW, USER, Rule, Snapshot

HOST = "a.example.com:443"
FRAME = {
    "ip": "93.184.216.34",
    "port": 443,
    "blocking": True,
    "pid": 7,
    "proc": "77",
    "exe": "/bin/c",
    "comm": "c",
}


class FakeDialer:
    """``outcome`` is a Refused, an OSError or None (open); ``wait`` holds it back."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.outcome: Exception | None = None
        self.wait = asyncio.Event()
        self.wait.set()
        self.ours, self.far = socket.socketpair()
        self.permits: list[Permit] = []
        self.gone = asyncio.Event()

    async def open(self, ip: str, port: int, origin: Origin, gone: asyncio.Event) -> Opened:
        self.gone = gone
        await self.wait.wait()
        if self.outcome is not None:
            raise self.outcome
        permit = await self._authority.permit("connect", HOST, origin)
        self.permits.append(permit)
        return Opened(ip, port, ("a.example.com",), self.ours, permit)


class World:
    def __init__(self, directory: Path) -> None:
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.served: list[tuple[Any, ...]] = []
        self.explained: list[Refused] = []
        self.authority = Authority(
            Snapshot("bench", (Rule(USER, ALLOW, "connect", HOST, source="user.toml:1"),)),
            Journal(str(directory / "journal")),
        )
        self.dialer = FakeDialer(self.authority)
        ctx = Context(self.authority, self.dialer)  # type: ignore[arg-type]
        self.doors = Doors(ctx, self.dialer, None, self.said.put_nowait)  # type: ignore[arg-type]
        self.listeners = {k: socket.create_server(("127.0.0.1", 0)) for k in ("tcp", "proxy")}
        for kind, listener in self.listeners.items():
            self.doors.listen(kind, listener)

    def dial(self, id: int = 1, **kw: Any) -> None:
        self.doors.dial({"type": "dial", "id": id, **FRAME, **kw})

    async def connect(self, kind: str = "tcp", id: int | None = 1) -> socket.socket:
        """Connect as the supervisor does with the agent's socket, and say so."""
        client = socket.create_connection(self.listeners[kind].getsockname())
        client.setblocking(False)
        if id is not None:
            self.doors.bound({"id": id, "port": client.getsockname()[1], "v6": False})
        return client

    async def serve(self, ctx: Any, client: socket.socket, origin: Origin, *rest: Any) -> None:
        self.served.append((origin, *rest))
        while data := await asyncio.get_running_loop().sock_recv(client, 100):
            await asyncio.get_running_loop().sock_sendall(client, data)

    async def explain(self, ctx: Any, client: socket.socket, origin: Origin, refused: Refused) -> None:
        self.explained.append(refused)

    def part(self, name: str) -> Any:
        return self.explain if name == "serve_refused" else self.serve

    def close(self) -> None:
        self.doors.close()
        for sock in (*self.listeners.values(), self.dialer.ours, self.dialer.far):
            sock.close()


Work = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], None]:
    async def within(work: Work) -> None:
        world = World(tmp_path)
        monkeypatch.setattr(parts, "of", world.part)
        try:
            await asyncio.wait_for(work(world), 10)
        finally:
            world.close()
            await asyncio.sleep(0)

    return lambda work: asyncio.run(within(work))


async def recv(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 100)


async def ended(sock: socket.socket) -> bool:
    """Say whether nothing came before the end, orderly or not."""
    try:
        return await recv(sock) == b""
    except ConnectionResetError:
        return True


def test_a_connect_is_dialled_bound_and_served(go: Callable[[Work], None]) -> None:
    async def work(w: World) -> None:
        w.dial()
        answer = await w.said.get()
        assert answer == {
            "type": "dialed",
            "id": 1,
            "errno": 0,
            "port": w.doors.ports["tcp"],
            "v6": False,
            "why": "",
        }
        with await w.connect() as client:
            await asyncio.get_running_loop().sock_sendall(client, b"hello")
            assert await recv(client) == b"hello"
        ((origin, ip, port, names, upstream, permit),) = w.served
        assert (origin.pid, ip, port, names) == (7, "93.184.216.34", 443, ("a.example.com",))
        assert upstream is w.dialer.ours
        while upstream.fileno() >= 0:  # closed with the client's end
            await asyncio.sleep(0.001)
        assert permit._open is False

    go(work)


@pytest.mark.parametrize(
    ("outcome", "code", "why"),
    [
        (Refused("the policy denies it"), errno.EACCES, "denies"),
        (OSError(errno.ECONNREFUSED, "connection refused"), errno.ECONNREFUSED, "refused"),
        (OSError("without a number"), errno.EACCES, "fault"),
        (RuntimeError("broken"), errno.EACCES, "fault"),
    ],
)
@pytest.mark.parametrize("blocking", [True, False])
def test_a_connect_that_fails_says_how(
    go: Callable[[Work], None], outcome: Exception, code: int, why: str, blocking: bool
) -> None:
    async def work(w: World) -> None:
        w.dialer.outcome = outcome
        w.dial(blocking=blocking)
        answer = await w.said.get()
        assert (answer["errno"], answer["port"]) == (code, 0)
        assert why in answer["why"]
        await asyncio.sleep(0)
        assert w.said.empty()
        w.dial()  # the number is free again
        assert (await w.said.get())["errno"] == code

    go(work)


@pytest.mark.parametrize("outcome", [None, Refused("no"), OSError(errno.EHOSTUNREACH, "no")])
def test_one_that_must_not_wait_goes_on_behind_an_accepted_connection(
    go: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch, outcome: Exception | None
) -> None:
    monkeypatch.setattr(module, "SOON", 0.01)

    async def work(w: World) -> None:
        w.dialer.wait.clear()
        w.dialer.outcome = outcome
        w.dial(blocking=False)
        assert (await w.said.get())["errno"] == 0
        with await w.connect() as client:
            await asyncio.sleep(0.01)
            assert w.served == []
            w.dialer.wait.set()
            if outcome is None:
                await asyncio.get_running_loop().sock_sendall(client, b"hello")
                assert await recv(client) == b"hello"
            elif isinstance(outcome, Refused):
                assert await recv(client) == b""
                assert w.explained == [outcome]
            else:
                with pytest.raises(ConnectionResetError):
                    await recv(client)
        assert w.said.empty()  # one answer, whatever came later

    go(work)


def test_a_blocking_one_is_answered_when_it_is_decided(
    go: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SOON", 0.0)

    async def work(w: World) -> None:
        w.dialer.wait.clear()
        w.dial()
        await asyncio.sleep(0.02)
        assert w.said.empty()
        w.dialer.wait.set()
        assert (await w.said.get())["errno"] == 0

    go(work)


def test_who_gives_up_lets_the_question_go(
    go: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SOON", 0.0)

    async def work(w: World) -> None:
        w.dialer.wait.clear()
        w.dial()
        await asyncio.sleep(0)
        w.doors.gone({"id": 1})
        assert w.dialer.gone.is_set()
        w.dial(2, blocking=False)
        assert (await w.said.get())["id"] in (1, 2)
        client = await w.connect(id=2)
        await asyncio.sleep(0.01)
        assert not w.dialer.gone.is_set()
        client.close()
        await asyncio.wait_for(w.dialer.gone.wait(), 5)

    go(work)


def test_an_upstream_that_nobody_comes_for_is_closed(
    go: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BOUND_WAIT", 0.01)

    async def work(w: World) -> None:
        w.dial()
        await w.said.get()
        w.dialer.far.setblocking(False)
        assert await recv(w.dialer.far) == b""
        assert w.dialer.permits[0]._open is False

    go(work)


@pytest.mark.parametrize("kind", ["tcp", "proxy"])
def test_who_is_not_announced_is_not_served(
    go: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(module, "WAIT", 0.02)
    monkeypatch.setattr(module.Announced.of, "__defaults__", (0.02,))

    async def work(w: World) -> None:
        with await w.connect(kind, id=None) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert await ended(client)
        assert w.served == []

    go(work)


def test_too_many_connects_and_connections_are_turned_away(
    go: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DIALS", 1)

    async def work(w: World) -> None:
        w.dialer.wait.clear()
        w.dial(1)
        w.dial(1)
        w.dial(2)
        assert [((await w.said.get())["id"], errno.EAGAIN) for _ in range(2)] == [(1, 11), (2, 11)]
        w.doors._limit = 1
        with await w.connect(id=None) as first, await w.connect(id=None) as second:
            assert await ended(second)
            assert not first.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert w.doors._open == 1

    go(work)


def test_a_revoked_connection_is_reset_at_both_ends(go: Callable[[Work], None]) -> None:
    async def work(w: World) -> None:
        w.dial()
        await w.said.get()
        with await w.connect() as client:
            await asyncio.get_running_loop().sock_sendall(client, b"hello")
            assert await recv(client) == b"hello"
            w.authority.adopt(Snapshot("bench", ()))
            with pytest.raises(ConnectionResetError):
                await recv(client)
        assert w.dialer.ours.fileno() < 0

    go(work)


def test_one_revoked_before_it_was_served_is_never_served(go: Callable[[Work], None]) -> None:
    async def work(w: World) -> None:
        w.dial()
        await w.said.get()
        w.authority.adopt(Snapshot("bench", ()))
        with await w.connect() as client:
            client.send(b"hello")
            with pytest.raises(ConnectionResetError):
                await recv(client)
        assert w.dialer.ours.fileno() < 0

    go(work)


def test_a_reset_is_a_reset() -> None:
    one, other = socket.socket(), socket.create_server(("127.0.0.1", 0))
    one.connect(other.getsockname())
    client, _ = other.accept()
    module.reset(client)
    with pytest.raises(ConnectionResetError):
        one.recv(1)
    assert struct.unpack("ii", module._RESET) == (1, 0)
    one.close()
    other.close()
