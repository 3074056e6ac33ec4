"""The line protocol over real sockets: who is heard, who is told, and what becomes of descriptors."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from remit_daemon.peers.process import Peer, PeerError, peer_of
from remit_daemon.runtime import channel as channels
from remit_daemon.runtime import lines
from remit_daemon.runtime.channel import Channel
from remit_daemon.runtime.lines import ByCaller, Lines, Method, Params, Problem, WithFds
from remit_daemon.wire.rpc import MAX_LINE, PARSE_ERROR, REFUSED

Client = Callable[[socket.socket], Awaitable[None]]


def anyone(writer: Peer) -> None:
    pass


def serve(methods: Mapping[str, Method], client: Client, admit: lines.Admit = anyone) -> None:
    """Serve ``client``, which gets its end of a connection."""

    async def both() -> None:
        ours, theirs = socket.socketpair()
        peer = peer_of(ours)
        channel = Channel(ours, peer)

        async def serving() -> None:
            await Lines(channel, methods, admit).serve()
            await channel.linger()
            channel.close()
            peer.close()

        task = asyncio.create_task(serving())
        theirs.setblocking(False)
        async with asyncio.timeout(20):
            await client(theirs)
            theirs.close()
            await task

    before = set(os.listdir("/proc/self/fd"))
    asyncio.run(both())
    assert set(os.listdir("/proc/self/fd")) == before


async def say(sock: socket.socket, *requests: Any) -> None:
    data = b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in requests)
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def hear(sock: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        more = await asyncio.get_running_loop().sock_recv(sock, 1 << 20)
        if not more:
            raise EOFError(data)
        data += more
    found: dict[str, Any] = json.loads(data)
    return found


def ask(method: str, ident: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": ident, "method": method, "params": params}


def test_a_method_is_told_its_caller_when_it_wants_to_be() -> None:
    async def client(sock: socket.socket) -> None:
        await say(sock, ask("who"), ask("who", 2))
        heard = b""
        while heard.count(b"\n") < 2:
            heard += await asyncio.get_running_loop().sock_recv(sock, 4096)
        assert [json.loads(x)["result"] for x in heard.splitlines()] == [os.getpid()] * 2

    serve({"who": ByCaller(lambda params, caller: caller.pid)}, client)


def test_a_child_is_told_apart_on_the_same_connection() -> None:
    async def client(sock: socket.socket) -> None:
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            sock.send(json.dumps(ask("who")).encode() + b"\n")
            os.write(told, b"x")
            os.read(os.pipe()[0], 1)
            os._exit(0)
        os.read(ready, 1)
        assert (await hear(sock))["result"] == child
        os.kill(child, 9)
        os.waitpid(child, 0)
        await say(sock, ask("who"))
        assert (await hear(sock))["result"] == os.getpid()
        os.close(ready)
        os.close(told)

    serve({"who": ByCaller(lambda params, caller: caller.pid)}, client)


@pytest.mark.parametrize("begins", ["child", "parent"])
def test_a_line_of_two_writers_is_nobodys(begins: str) -> None:
    called: list[Params] = []

    async def client(sock: socket.socket) -> None:
        first, second = b'{"jsonrpc":"2.0","id":1,', b'"method":"do","params":{}}\n'
        if begins == "parent":
            sock.send(first)
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            sock.send(first if begins == "child" else second)
            os.write(told, b"x")
            os.read(os.pipe()[0], 1)
            os._exit(0)
        os.read(ready, 1)
        if begins == "child":
            await asyncio.sleep(0.05)  # it is alive while the first half is read
            sock.send(second)
        error = (await hear(sock))["error"]
        assert (error["code"], "another process" in error["message"]) == (REFUSED, True)
        with pytest.raises(EOFError):
            await hear(sock)
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)

    serve({"do": called.append}, client)
    assert called == []


def test_who_is_not_admitted_is_told_why() -> None:
    def admit(writer: Peer) -> None:
        raise PeerError("not you")

    async def client(sock: socket.socket) -> None:
        await say(sock, ask("do"))
        assert (await hear(sock))["error"] == {"code": REFUSED, "message": "not you"}

    serve({"do": lambda params: 1}, client, admit)


async def take(sock: socket.socket) -> tuple[bytes, list[int]]:
    await asyncio.sleep(0)
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(sock, 1 << 20, 16)
        except BlockingIOError:
            await asyncio.sleep(0.001)
        else:
            return data, fds


def test_descriptors_come_with_the_line_and_are_closed_here() -> None:
    async def client(sock: socket.socket) -> None:
        for n in range(300):
            await say(sock, ask("open", n))
            data, fds = await take(sock)
            assert json.loads(data)["result"] == {"fds": 2}
            assert os.read(fds[0], 10) == b"yes"
            for fd in fds:
                os.close(fd)

    def opened(params: Params) -> WithFds:
        r, w = os.pipe()
        os.write(w, b"yes")
        return WithFds({"fds": 2}, [r, w])

    serve({"open": opened}, client)


@pytest.mark.parametrize("fault", ["notification", "gone"])
def test_descriptors_that_nobody_gets_are_closed(fault: str) -> None:
    async def opened(params: Params) -> WithFds:
        await asyncio.sleep(0.02)
        return WithFds({}, list(os.pipe()))

    async def client(sock: socket.socket) -> None:
        request = ask("open")
        if fault == "notification":
            del request["id"]
        await say(sock, request)
        if fault == "notification":
            await say(sock, ask("end"))
            assert (await hear(sock))["error"]["code"] == -32601

    serve({"open": opened}, client)


def test_a_peer_that_does_not_read_keeps_no_descriptors_open_here() -> None:
    """Those in the kernel's buffers are not ours any more; behind them few wait, and the next request does too."""
    asked = 0

    async def client(sock: socket.socket) -> None:
        before = len(os.listdir("/proc/self/fd"))
        await say(sock, *(ask("open", n) for n in range(700)))
        seen = -1
        while seen != asked:
            seen = asked
            await asyncio.sleep(0.1)
        assert asked < 700, "the socket's buffer holds fewer"
        assert len(os.listdir("/proc/self/fd")) < before + 10
        data = b""
        while data.count(b"\n") < 700:
            more, fds = await take(sock)
            data += more
            for fd in fds:
                os.close(fd)

    def opened(params: Params) -> WithFds:
        nonlocal asked
        asked += 1
        return WithFds({}, [os.open("/", os.O_PATH)])

    serve({"open": opened}, client)


def test_descriptors_behind_an_answer_that_does_not_fit_come_in_their_place() -> None:
    big = "x" * (3 << 20)

    async def client(sock: socket.socket) -> None:
        await say(sock, ask("big"), ask("open", 2))
        data, fds = b"", list[int]()
        while data.count(b"\n") < 2:
            more, got = await take(sock)
            assert not got or (data + more).count(b"\n") >= 1, "a descriptor came before its line"
            data, fds = data + more, fds + got
        assert [json.loads(x)["id"] for x in data.splitlines()] == [1, 2]
        assert len(fds) == 1
        os.close(fds[0])

    serve({"big": lambda p: big, "open": lambda p: WithFds({}, [os.open("/", os.O_PATH)])}, client)


def test_the_framing_is_json_rpcs() -> None:
    async def client(sock: socket.socket) -> None:
        await say(sock, ask("no"))
        assert (await hear(sock))["error"] == {"code": 7, "message": "no"}
        await say(sock, {"id": 1})
        assert (await hear(sock))["error"]["code"] == -32600
        with pytest.raises(EOFError):
            await hear(sock)

    def no(params: Params) -> None:
        raise Problem(7, "no")

    serve({"no": no}, client)


def test_a_last_line_without_an_end_is_a_line() -> None:
    async def client(sock: socket.socket) -> None:
        await say(sock, json.dumps(ask("do")).encode())
        sock.shutdown(socket.SHUT_WR)
        assert (await hear(sock))["result"] == "done"

    serve({"do": lambda p: "done"}, client)


def test_a_line_has_a_longest_length() -> None:
    async def client(sock: socket.socket) -> None:
        sending = asyncio.create_task(say(sock, b"[" * (MAX_LINE + channels.READ + 1)))
        assert (await hear(sock))["error"]["code"] == PARSE_ERROR
        await asyncio.gather(sending, return_exceptions=True)

    serve({}, client)


def test_one_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_UNSENT", 1 << 20)

    async def client(sock: socket.socket) -> None:
        await say(sock, ask("big"))
        await asyncio.sleep(0.05)  # it is offered the answer, and takes nothing
        with pytest.raises((ConnectionError, EOFError)):
            await hear(sock)

    serve({"big": lambda p: "x" * (3 << 20)}, client)
