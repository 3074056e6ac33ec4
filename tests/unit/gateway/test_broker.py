"""The link to remitd: made again after it was lost, with what is held said again; nothing else is believed."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from remit_daemon.gateway import broker as module
from remit_daemon.gateway.authority import Authority, Origin, Refused
from remit_daemon.gateway.broker import Broker
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import frames
from remit_daemon.wire.control import VERSION
from remit_policy.model import ALLOW, ASK, DENY, USER, Rule, Snapshot, dumps

HOST = "a.example.com:443"


def snapshot(verdict: int = ASK) -> str:
    return dumps(Snapshot("bench", (Rule(USER, verdict, "connect", HOST, source="user.toml:1"),)))


WELCOME = {
    "type": "welcome",
    "session": "s",
    "agent": "bench",
    "snapshot": snapshot(),
    "revision": 3,
    "message": "",
}


class Remitd:
    """A remitd's control socket: ``connections`` are those that came, each with what it said."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.connections: asyncio.Queue[Peer] = asyncio.Queue()

    async def __aenter__(self) -> Remitd:
        self._server = await asyncio.start_unix_server(self._came, self._path)
        return self

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.connections.put(Peer(reader, writer))

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        Path(self._path).unlink(missing_ok=True)

    async def next(self, welcome: Any = WELCOME) -> Peer:
        peer = await self.connections.get()
        assert await peer.heard() == {"type": "gateway", "version": VERSION, "session": "s", "tag": 9}
        if welcome is not None:
            peer.say(welcome)
        return peer


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._cutter = frames.Reader()
        self._frames: list[Any] = []

    def say(self, frame: Any) -> None:
        self.writer.write(frames.encode(frame))

    async def heard(self, kind: str = "") -> Any:
        """Return the next frame, of ``kind`` when it is given; None at the end."""
        while True:
            while self._frames:
                frame = self._frames.pop(0)
                if kind in ("", frame["type"]):
                    return frame
            data = await self._reader.read(4096)
            if not data:
                return None
            self._frames += self._cutter.feed(data)


class World:
    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "control.sock")
        self.authority = Authority(
            Snapshot("bench", (Rule(USER, ASK, "connect", HOST, source="user.toml:1"),)),
            Journal(str(directory / "journal")),
        )
        log = logging.getLogger("remit.test-gateway")
        log.propagate = False
        self.broker = Broker(self.path, "s", 9, self.authority, log)

    async def permit(self) -> None:
        (await self.authority.permit("connect", HOST, Origin())).done()


Work = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], None]:
    monkeypatch.setattr(module, "RETRY", 0.01)

    async def within(work: Work) -> None:
        world = World(tmp_path)
        running = asyncio.ensure_future(world.broker.run())
        try:
            await asyncio.wait_for(work(world), 10)
            assert not running.done()  # whatever remitd does
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return lambda work: asyncio.run(within(work))


def test_an_ask_goes_up_and_its_answer_comes_down(go: Callable[[Work], None]) -> None:
    async def work(w: World) -> None:
        async with Remitd(w.path) as remitd:
            peer = await remitd.next()
            await peer.heard("poke")
            held = asyncio.ensure_future(w.permit())
            ask = await peer.heard("ask")
            assert (ask["ops"], ask["path"], w.authority.revision) == (["connect"], HOST, 3)
            peer.say({"type": "asked", "seq": ask["seq"], "prompt": "p1"})
            peer.say(
                {"type": "answer", "seq": ask["seq"], "verdict": "allow", "prompt": "p1", "message": ""}
            )
            await held

    go(work)


def test_what_is_held_is_said_again_to_a_remitd_that_comes_back(go: Callable[[Work], None]) -> None:
    async def work(w: World) -> None:
        held = [asyncio.ensure_future(w.permit()) for _ in range(2)]  # while there is none yet
        await asyncio.sleep(0)
        for _ in range(2):
            async with Remitd(w.path) as remitd:
                peer = await remitd.next()
                ask = await peer.heard("ask")
                assert (ask["path"], ask["count"]) == (HOST, 2)
                peer.writer.close()
        async with Remitd(w.path) as remitd:
            peer = await remitd.next()
            ask = await peer.heard("ask")
            peer.say({"type": "answer", "seq": ask["seq"], "verdict": "allow", "prompt": "", "message": ""})
            await asyncio.gather(*held)

    go(work)


@pytest.mark.parametrize(("verdict", "refused"), [(ALLOW, False), (DENY, True)])
def test_the_snapshot_of_a_welcome_settles_what_is_held(
    go: Callable[[Work], None], verdict: int, refused: bool
) -> None:
    async def work(w: World) -> None:
        held = asyncio.ensure_future(w.permit())
        await asyncio.sleep(0)
        async with Remitd(w.path) as remitd:
            peer = await remitd.next({**WELCOME, "snapshot": snapshot(verdict)})
            if refused:
                with pytest.raises(Refused):
                    await held
            else:
                await held
            assert (await peer.heard())["type"] == "poke"  # not asked any more

    go(work)


def test_a_snapshot_that_is_not_understood_leaves_the_old_one_in_force(go: Callable[[Work], None]) -> None:
    async def work(w: World) -> None:
        async with Remitd(w.path) as remitd:
            peer = await remitd.next()
            for text in ("", "remit-snapshot\t999\n", 7, None):
                peer.say({"type": "snapshot", "snapshot": text, "revision": 4})
            peer.say({"type": "snapshot", "snapshot": snapshot(ALLOW), "revision": 5})
            while w.authority.revision != 5:
                await asyncio.sleep(0.001)
            await w.permit()

    go(work)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "bless"}, {"type": "answer"}, {"type": "answer", "seq": "x", "verdict": "allow", "message": "", "prompt": ""},
        {}, [], 5, None, "answer", {"type": ["answer"]}, {"type": "asked", "seq": None, "prompt": ""}, {"type": "welcome"},
    ],
)  # fmt: skip
def test_what_remitd_does_not_say_ends_the_connection_and_it_is_made_anew(
    go: Callable[[Work], None], frame: Any
) -> None:
    async def work(w: World) -> None:
        async with Remitd(w.path) as remitd:
            held = asyncio.ensure_future(w.permit())
            peer = await remitd.next()
            ask = await peer.heard("ask")
            peer.say(frame)
            # Behind the fault, and so never heard.
            peer.say({"type": "answer", "seq": ask["seq"], "verdict": "allow", "prompt": "", "message": ""})
            again = await remitd.next()
            assert (await again.heard("ask"))["seq"] == ask["seq"]
            assert not held.done()
            held.cancel()

    go(work)


@pytest.mark.parametrize(
    "first", [{"type": "refused", "error": "no", "code": 1}, {"type": "answer"}, 5, [], None]
)
def test_nothing_is_said_to_one_that_does_not_welcome(go: Callable[[Work], None], first: Any) -> None:
    async def work(w: World) -> None:
        held = asyncio.ensure_future(w.permit())
        async with Remitd(w.path) as remitd:
            peer = await remitd.next(None)
            peer.writer.write(frames.encode(first))
            assert await peer.heard() is None
            await remitd.next()
            held.cancel()

    go(work)


def test_bytes_that_are_no_frames_end_the_connection(go: Callable[[Work], None]) -> None:
    async def work(w: World) -> None:
        async with Remitd(w.path) as remitd:
            for raw in (b"\xff\xff\xff\xff", b"\x04\0\0\0zzzz", b"\x02\0\0\0ld"):
                peer = await remitd.next()
                peer.writer.write(raw)
            await remitd.next()

    go(work)


def test_a_remitd_that_takes_no_more_is_connected_to_anew(
    go: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNSENT", 1 << 16)

    async def work(w: World) -> None:
        async with Remitd(w.path) as remitd:
            peer = await remitd.next()
            await peer.heard("poke")
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(1000):
                w.broker.say({"type": "ask", "path": "x" * 4096})
            await remitd.next()

    go(work)


def test_a_socket_of_another_user_is_not_spoken_to(
    go: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(w: World) -> None:
        monkeypatch.setattr(module.os, "getuid", lambda: 12345)
        async with Remitd(w.path) as remitd:
            peer = await remitd.connections.get()
            assert await peer.heard() is None
            monkeypatch.undo()

    assert socket.SO_PEERCRED
    go(work)
