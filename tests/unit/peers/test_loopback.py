from __future__ import annotations

import os
import socket

from remit_daemon.peers import loopback


def pair(
    kind: int = socket.AF_INET, address: str = "127.0.0.1"
) -> tuple[socket.socket, socket.socket, socket.socket]:
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.socket(kind)
    port = listener.getsockname()[1]
    client.connect(("::ffff:127.0.0.1", port) if kind == socket.AF_INET6 else (address, port))
    return listener, client, listener.accept()[0]


def test_the_other_end_is_named() -> None:
    for kind in (socket.AF_INET, socket.AF_INET6):
        listener, client, server = pair(kind)
        with listener, client, server:
            found = loopback.owner(server.getpeername(), server.getsockname())
            assert found == (os.getuid(), os.fstat(client.fileno()).st_ino)
            assert loopback.holders(found[1]) == [os.getpid()]


def test_who_has_said_all_still_listens() -> None:
    listener, client, server = pair()
    with listener, client, server:
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        found = loopback.owner(server.getpeername(), server.getsockname())
        assert found == (os.getuid(), os.fstat(client.fileno()).st_ino)


def test_each_connection_is_its_own() -> None:
    listener, client, server = pair()
    with listener, client, server:
        other = socket.create_connection(
            listener.getsockname(), source_address=("127.0.0.2", client.getsockname()[1])
        )
        with other, listener.accept()[0] as second:
            assert second.getpeername()[1] == server.getpeername()[1]
            for end, peer in ((server, client), (second, other)):
                found = loopback.owner(end.getpeername(), end.getsockname())
                assert found is not None
                assert found[1] == os.fstat(peer.fileno()).st_ino


def test_who_is_gone_is_nobody() -> None:
    listener, client, server = pair()
    with listener, server:
        peer = server.getpeername()
        client.close()
        assert loopback.owner(peer, server.getsockname()) is None
    assert loopback.holders(1) == []
