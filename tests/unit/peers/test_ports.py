"""Who listens at a port: what the kernel says, and that its refusal to say is no "nobody"."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from remit_daemon.peers import ports


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def test_listeners_of_both_families() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        with (
            socket.create_server(("::1", port), family=socket.AF_INET6) as other,
            socket.create_connection(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", 0)),
        ):
            assert ports.listening(port) == {inode(one), inode(other)}
    assert ports.listening(port) == set()


@pytest.mark.parametrize("kind", [2, 3])  # NLMSG_ERROR, NLMSG_DONE
def test_an_error_is_not_nobody(kind: int) -> None:
    raw = struct.pack("=IHHIIi", 20, kind, 0, 0, 0, -errno.EPERM)
    with pytest.raises(PermissionError):
        ports._messages(raw, 80, set())


def test_an_answer_that_is_none() -> None:
    with pytest.raises(OSError, match="none"):
        ports._messages(bytes(100), 80, set())
