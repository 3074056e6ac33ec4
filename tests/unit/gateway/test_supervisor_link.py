"""What the supervisor may say: a table, and nothing beside it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from remit_daemon.gateway.supervisor import FIELDS, Malformed, Supervisor, check
from remit_daemon.wire import frames

VALUES = {int: 1, str: "x", bool: True, list: ["x"], dict: {}, bytes: b"x"}


def frame(kind: str) -> dict[str, Any]:
    return {"type": kind, **{name: VALUES[wanted] for name, wanted in FIELDS[kind].items()}}


@pytest.mark.parametrize("kind", FIELDS)
def test_each_frame_has_all_its_fields_and_no_other_type(kind: str) -> None:
    first = kind == "hello"
    assert check(frame(kind), first)["type"] == kind
    with pytest.raises(Malformed):
        check(frame(kind), not first)
    for name, wanted in FIELDS[kind].items():
        for wrong in [v for t, v in VALUES.items() if t is not wanted] + [None]:
            with pytest.raises(Malformed):
                check({**frame(kind), name: wrong}, first)
        short = frame(kind)
        del short[name]
        with pytest.raises(Malformed):
            check(short, first)


@pytest.mark.parametrize("what", [None, 5, [], {}, {"type": 5}, {"type": "bless"}, {**frame("bound"), "port": 65536}, {**frame("bound"), "port": -1}, {**frame("dial"), "argv": [b"x"]}])  # fmt: skip
def test_anything_else_is_malformed(what: Any) -> None:
    with pytest.raises(Malformed):
        check(what, False)


def test_frames_come_at_any_split_and_what_came_with_the_hello_is_heard() -> None:
    async def work() -> None:
        ours, theirs = socket.socketpair()
        link = Supervisor(theirs.detach())
        first = frames.encode(frame("hello")) + frames.encode(frame("gone"))
        ours.sendall(first)
        assert (await link.hello())["session"] == "x"
        heard: list[str] = []
        handlers = dict.fromkeys(FIELDS, lambda f: heard.append(f["type"]))
        serving = asyncio.ensure_future(link.serve(handlers))
        for byte in frames.encode(frame("bound")):
            ours.send(bytes([byte]))
            await asyncio.sleep(0)
        while heard != ["gone", "bound"]:
            await asyncio.sleep(0)
        link.say({"type": "dialed"})
        assert frames.Reader().feed(ours.recv(1000)) == [{"type": "dialed"}]
        ours.close()
        with pytest.raises(EOFError):
            await serving

    asyncio.run(asyncio.wait_for(work(), 10))


@pytest.mark.parametrize(
    "raw", [frames.encode({"type": "bless"}), frames.encode(frame("hello")), b"\xff" * 8]
)
def test_what_is_wrong_ends_the_gateway(raw: bytes) -> None:
    async def work() -> None:
        ours, theirs = socket.socketpair()
        link = Supervisor(theirs.detach())
        ours.sendall(frames.encode(frame("hello")))
        await link.hello()
        ours.sendall(raw)
        with pytest.raises((Malformed, frames.FrameError)):
            await link.serve({})
        ours.close()

    asyncio.run(asyncio.wait_for(work(), 10))


def test_a_handler_that_fails_ends_the_gateway_too() -> None:
    async def work() -> None:
        ours, theirs = socket.socketpair()
        link = Supervisor(theirs.detach())
        ours.sendall(frames.encode(frame("hello")))
        await link.hello()
        ours.sendall(frames.encode(frame("gone")))
        with pytest.raises(ZeroDivisionError):
            await link.serve({"gone": lambda f: 1 / 0})  # type: ignore[dict-item,return-value]
        ours.close()

    asyncio.run(asyncio.wait_for(work(), 10))
