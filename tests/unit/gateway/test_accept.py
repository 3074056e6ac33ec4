"""The doors: dials answered, connections matched with their announcements, limits, and that nothing is left open."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.gateway import ORIGIN, policy, request, run
from remit_daemon.gateway import accept, announced
from remit_daemon.gateway.accept import Doors, HangUp
from remit_daemon.gateway.authority import Authority, Origin, Refused
from remit_daemon.gateway.context import Context
from remit_daemon.gateway.dial import Opened
from remit_daemon.gateway.journal import Journal

FRAME = {"pid": 7, "proc": "99", "exe": "/bin/x", "comm": "x", "argv": ["x"]}


class Dialer:
    """Opens what ``then`` says: a permit and one end of a pair, an error, or nothing for ever."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.then: Any = None
        self.go = asyncio.Event()
        self.go.set()
        self.servers: list[socket.socket] = []
        self.gone: list[asyncio.Event | None] = []

    async def open(self, ip: str, port: int, origin: Origin, gone: asyncio.Event | None = None) -> Opened:
        self.gone.append(gone)
        await self.go.wait()
        if self.then is not None:
            raise self.then
        permit = await self.authority.permit("connect", "a.example:80", ORIGIN)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.servers.append(theirs)
        return Opened("192.0.2.1", port, ("a.example",), ours, permit)


class World:
    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, limit: int = 100) -> None:
        monkeypatch.setattr(accept, "_connections", lambda: limit)
        self.authority = Authority(
            policy('[role.probe.net]\nconnect = { allow = ["a.example"] }\n'),
            Journal(str(path / "journal")),
        )
        self.dialer = Dialer(self.authority)
        self.ctx = Context(self.authority, self.dialer, state=str(path), private=str(path))  # type: ignore[arg-type]
        self.said: list[dict[str, Any]] = []
        self.doors = Doors(self.ctx, self.dialer, None, self.said.append)  # type: ignore[arg-type]
        self.listeners = {}
        for kind in ("tcp", "proxy", "dns_tcp"):
            self.listeners[kind] = socket.create_server(("127.0.0.1", 0))
            self.doors.listen(kind, self.listeners[kind])

    def close(self) -> None:
        self.doors.close()
        for listener in self.listeners.values():
            asyncio.get_running_loop().remove_reader(listener.fileno())
            listener.close()

    def dial(self, id: int = 1, *, blocking: bool = True) -> None:
        self.doors.dial({**FRAME, "id": id, "ip": "192.0.2.1", "port": 80, "blocking": blocking})

    async def answered(self, count: int = 1) -> list[tuple[int, int]]:
        """Return id and errno of the answers, once there are so many."""
        while len(self.said) < count:
            await asyncio.sleep(0.001)
        return [(f["id"], f["errno"]) for f in self.said]

    async def come(self, kind: str = "tcp") -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.doors.ports[kind])
        return reader, writer, writer.get_extra_info("sockname")[1]


def session(
    path: Path, monkeypatch: pytest.MonkeyPatch, **more: int
) -> Callable[[Callable[[World], Any]], None]:
    def decorated(test: Callable[[World], Any]) -> None:
        async def whole() -> None:
            w = World(path, monkeypatch, **more)
            before = len(os.listdir("/proc/self/fd"))
            await test(w)
            w.close()
            for _ in range(100):
                if not w.doors._tasks and len(os.listdir("/proc/self/fd")) <= before:
                    break
                await asyncio.sleep(0.005)
            assert not w.doors._tasks
            assert not w.authority._live
            assert (w.doors._open, w.doors._open_dns, w.doors._dials) == (0, 0, {})

        run(whole())

    return decorated


async def end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b"RESET"


def test_a_connect_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @session(tmp_path, monkeypatch)
    async def _(w: World) -> None:
        w.dial()
        assert await w.answered() == [(1, 0)]
        assert w.said[0]["port"] == w.doors.ports["tcp"]
        reader, writer, port = await w.come()
        w.doors.bound({"id": 1, "v6": False, "port": port})
        writer.write(b"\0hello")
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(w.dialer.servers[0], 100) == b"\0hello"
        w.dialer.servers[0].sendall(b"back")
        assert await reader.readexactly(4) == b"back"
        w.dialer.servers[0].close()
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("no"), errno.EACCES),
        (OSError(errno.ECONNREFUSED, "x"), errno.ECONNREFUSED),
        (OSError("odd"), errno.EACCES),
        (RuntimeError("x"), errno.EACCES),
    ],
)
def test_what_cannot_be_opened_is_an_errno(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    @session(tmp_path, monkeypatch)
    async def _(w: World) -> None:
        w.dialer.then = error
        w.dial()
        assert await w.answered() == [(1, code)]


def test_a_connection_of_nobody_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "WAIT", 0.02)
    monkeypatch.setattr(announced, "WAIT", 0.02)
    monkeypatch.setattr(announced.Announced.of, "__defaults__", (0.02,))

    @session(tmp_path, monkeypatch)
    async def _(w: World) -> None:
        for kind in ("tcp", "proxy", "dns_tcp"):
            reader, writer, _ = await w.come(kind)
            writer.write(request("GET http://a.example/", "a.example"))
            assert await end(reader) in (b"", b"RESET")
            writer.close()


def test_more_than_there_may_be_are_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "MAX_TCP_DNS", 1)

    @session(tmp_path, monkeypatch, limit=2)
    async def _(w: World) -> None:
        kept = [await w.come(kind) for kind in ("tcp", "proxy", "dns_tcp")]
        while (w.doors._open, w.doors._open_dns) != (2, 1):
            await asyncio.sleep(0.001)
        for kind in ("tcp", "proxy", "dns_tcp"):
            try:
                reader, writer, _ = await w.come(kind)
            except ConnectionResetError:
                continue  # so early may it come
            assert await end(reader) == b"RESET"
            writer.close()
        for _, writer, _ in kept:
            writer.close()


def test_too_many_dials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "MAX_DIALS", 2)

    @session(tmp_path, monkeypatch)
    async def _(w: World) -> None:
        w.dialer.go.clear()
        for id in (1, 1, 2, 3):
            w.dial(id)
        assert await w.answered(2) == [(1, errno.EAGAIN), (3, errno.EAGAIN)]


def test_who_gives_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @session(tmp_path, monkeypatch)
    async def _(w: World) -> None:
        w.dialer.go.clear()
        w.dial()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        w.doors.gone({"id": 1})
        w.doors.gone({"id": 1})
        assert w.dialer.gone[0] is not None
        assert w.dialer.gone[0].is_set()
        w.dialer.go.set()
        w.dial(2)  # opened, and then nobody comes for it
        await w.answered(2)
        w.doors.gone({"id": 2})
        assert await asyncio.get_running_loop().sock_recv(w.dialer.servers[-1], 1) == b""


def test_an_opened_one_that_nobody_comes_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "BOUND_WAIT", 0.02)

    @session(tmp_path, monkeypatch)
    async def _(w: World) -> None:
        w.dial()
        await w.answered()
        assert await asyncio.get_running_loop().sock_recv(w.dialer.servers[0], 1) == b""
        w.doors.bound({"id": 1, "v6": False, "port": 1})  # too late


@pytest.mark.parametrize(
    "error",
    [Refused("the answer was no", op="connect", resource="a.example:80"), OSError(errno.EHOSTUNREACH, "x")],
)
def test_a_late_no_is_said_or_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A non-blocking connect is let in while it is undecided."""
    monkeypatch.setattr(accept, "SOON", 0.01)

    @session(tmp_path, monkeypatch)
    async def _(w: World) -> None:
        w.dialer.go.clear()
        w.dial(blocking=False)
        assert await w.answered() == [(1, 0)]
        reader, writer, port = await w.come()
        w.doors.bound({"id": 1, "v6": False, "port": port})
        writer.write(request("GET /", "a.example"))
        await asyncio.sleep(0.02)
        w.dialer.then = error
        w.dialer.go.set()
        found = await end(reader)
        writer.close()
        assert (b"the answer was no" in found) == isinstance(error, Refused)
        assert (found == b"RESET") == isinstance(error, OSError)


def test_who_hangs_up_while_it_is_undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "SOON", 0.01)

    @session(tmp_path, monkeypatch)
    async def _(w: World) -> None:
        w.dialer.go.clear()
        w.dial(blocking=False)
        await w.answered()
        _, writer, port = await w.come()
        w.doors.bound({"id": 1, "v6": False, "port": port})
        writer.write(b"unread")
        await writer.drain()
        writer.close()
        assert w.dialer.gone[0] is not None
        await asyncio.wait_for(w.dialer.gone[0].wait(), 2)


def test_a_permission_that_is_taken_back_resets_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @session(tmp_path, monkeypatch)
    async def _(w: World) -> None:
        w.dial()
        await w.answered()
        reader, writer, port = await w.come()
        w.doors.bound({"id": 1, "v6": False, "port": port})
        writer.write(b"\0")
        await asyncio.get_running_loop().sock_recv(w.dialer.servers[0], 1)
        w.authority.adopt(policy('[role.probe.net]\nconnect = { deny = ["*"] }\n'))
        assert await end(reader) == b"RESET"
        assert await asyncio.get_running_loop().sock_recv(w.dialer.servers[0], 1) == b""
        writer.close()


def test_descriptors_that_run_out_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "EMFILE_PAUSE", 0.02)

    @session(tmp_path, monkeypatch)
    async def _(w: World) -> None:
        class Full:
            def __init__(self, real: socket.socket) -> None:
                self.real, self.left = real, 1

            def accept(self) -> Any:
                if self.left:
                    self.left = 0
                    raise OSError(errno.EMFILE, "too many")
                return self.real.accept()

            def fileno(self) -> int:
                return self.real.fileno()

        loop = asyncio.get_running_loop()
        loop.remove_reader(w.listeners["proxy"].fileno())
        loop.add_reader(w.listeners["proxy"].fileno(), w.doors._accept, "proxy", Full(w.listeners["proxy"]))
        reader, writer, port = await w.come("proxy")
        w.doors.proxy({**FRAME, "v6": False, "port": port})
        writer.write(request("GET http://d..example/", "d..example"))
        assert b" 400 " in await reader.readline()
        writer.close()


def test_hang_up_is_seen_behind_unread_bytes() -> None:
    async def test() -> None:
        here, there = socket.socketpair()
        gone = asyncio.Event()
        with here, HangUp(there, gone):
            here.sendall(b"unread")
            await asyncio.sleep(0.005)
            assert not gone.is_set()
            here.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(gone.wait(), 2)
        assert there.recv(10) == b"unread"
        there.close()

    run(test())
