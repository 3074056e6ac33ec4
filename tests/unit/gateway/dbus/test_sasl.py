"""The handshake: what libraries say, and what nobody should."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from remit_daemon.gateway.dbus import sasl
from remit_daemon.gateway.dbus.wire import Malformed

UID = str(os.getuid()).encode().hex().encode()


async def _talk(said: bytes, *, files: bool = True, one: bool = False) -> tuple[sasl.Shaken, bytes, bytes]:
    """Have a client say ``said`` at once (``one``: a byte at a time); return the result and what client and bus were told."""
    loop = asyncio.get_running_loop()
    (client, ours), (theirs, bus) = socket.socketpair(), socket.socketpair()
    for sock in (client, ours, theirs, bus):
        sock.setblocking(False)
    told = b""

    async def be_bus() -> None:
        nonlocal told
        while data := await loop.sock_recv(bus, 4096):
            told += data
            for line in data.split(b"\r\n"):
                if line.startswith(b"\0AUTH"):
                    await loop.sock_sendall(bus, b"OK 1234deadbeef\r\n")
                elif line == b"NEGOTIATE_UNIX_FD":
                    await loop.sock_sendall(bus, b"AGREE_UNIX_FD\r\n" if files else b"ERROR\r\n")

    async def be_client() -> None:
        for i in range(len(said)) if one else (slice(None),):
            await loop.sock_sendall(client, said[i : i + 1] if isinstance(i, int) else said)
            await asyncio.sleep(0)
        client.shutdown(socket.SHUT_WR)

    helpers = [asyncio.ensure_future(be_bus()), asyncio.ensure_future(be_client())]
    try:
        done = await sasl.shake(ours, theirs)
        await asyncio.sleep(0.01)
        return done, client.recv(4096), told
    finally:
        for helper in helpers:
            helper.cancel()
        for sock in (client, ours, theirs, bus):
            sock.close()


def talk(said: bytes, **kw: bool) -> tuple[sasl.Shaken, bytes, bytes]:
    return asyncio.run(_talk(said, **kw))


@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        b"\0AUTH EXTERNAL " + UID + b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\nrest",
        b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\nrest",
        b"\0AUTH\r\nAUTH EXTERNAL " + UID + b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\nrest",
    ],
)
def test_libraries(said: bytes, one: bool) -> None:
    done, answers, told = talk(said, one=one)
    assert answers.endswith(b"OK 1234deadbeef\r\nAGREE_UNIX_FD\r\n")
    assert told == b"\0AUTH EXTERNAL " + UID + b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"
    assert done.files
    assert b"rest".startswith(done.from_client)


def test_without_descriptors() -> None:
    done, _, told = talk(b"\0AUTH EXTERNAL " + UID + b"\r\nBEGIN\r\n")
    assert not done.files
    assert b"NEGOTIATE" not in told
    done, answers, _ = talk(b"\0AUTH EXTERNAL " + UID + b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n", files=False)
    assert not done.files
    assert answers.endswith(b"ERROR\r\n")


@pytest.mark.parametrize(
    "mechanism",
    [b"ANONYMOUS", b"ANONYMOUS 00", b"DBUS_COOKIE_SHA1 00", b"EXTERNAL 39393939", b"EXTERNAL x"],
)
def test_other_mechanisms_and_people(mechanism: bytes) -> None:
    _, answers, told = talk(b"\0AUTH " + mechanism + b"\r\nAUTH EXTERNAL " + UID + b"\r\nBEGIN\r\n")
    assert answers.startswith(b"REJECTED EXTERNAL\r\n")
    assert mechanism not in told or mechanism == b"EXTERNAL"


@pytest.mark.parametrize(
    "said",
    [
        b"AUTH EXTERNAL " + UID + b"\r\n",
        b"\0BEGIN\r\n",
        b"\0AUTH ANONYMOUS\r\nBEGIN\r\n",
        b"\0AUTH EXTERNAL\r\nBEGIN\r\n",
        b"\0" + b"x" * 20_000,
        b"\0" + b"x" * 20_000 + b"\r\n",
        b"\0AUTH \xff\r\n",
        b"\0AUTH EXTERNAL\0\r\n",
        b"\0" + b"AUTH\r\n" * 100,
        b"\0" + b"NEGOTIATE_UNIX_FD\r\n" * 100,
    ],
)
def test_what_ends_the_connection(said: bytes) -> None:
    with pytest.raises(Malformed):
        talk(said)


@pytest.mark.parametrize("said", [b"", b"\0", b"\0AUTH", b"\0AUTH EXTERNAL " + UID + b"\r\nBEGIN\r"])
def test_who_leaves(said: bytes) -> None:
    with pytest.raises((EOFError, OSError)):
        talk(said)
