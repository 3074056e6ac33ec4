"""Who listens at a port of this machine."""

from __future__ import annotations

import os
import socket

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
