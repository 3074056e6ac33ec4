"""Who wrote each piece of a stream: inherited, handed-on and dead writers, and descriptors that nobody asked for."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from remit_daemon.peers import senders
from remit_daemon.peers.process import Peer, PeerError, peer_of, pidfs
from remit_daemon.peers.senders import PID, PIDFD, Senders

OURS = os.getpid()


class Link:
    """A listening socket, our connection to it and what it accepted; ``connector`` is us."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        senders.ask(self.listener)
        self.listener.listen(4)
        self.out = socket.socket(socket.AF_UNIX)
        self.out.connect(path)

    def accept(self) -> Senders:
        self.sock, _ = self.listener.accept()
        self.sock.setblocking(False)
        self.connector = peer_of(self.sock)
        self.senders = Senders(self.sock, self.connector)
        return self.senders

    def close(self) -> None:
        for thing in (self.senders, self.connector, self.sock, self.out, self.listener):
            thing.close()


@pytest.fixture
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    found = Link(str(tmp_path_factory.mktemp("s") / "s"))
    yield found
    found.close()


def forked(what: Callable[[], object]) -> int:
    """Do ``what`` in a child of ours and return its pid once it stands still, having done it; ``release`` ends it."""
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            what()
            os.write(told, b"x")
            os.read(os.pipe()[0], 1)  # for ever: nobody writes
        finally:
            os._exit(1)
    os.close(told)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    return pid


def end(pid: int) -> None:
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_this_kernel_names_the_writer_by_a_pidfd() -> None:
    assert senders.rung() == PIDFD  # README: Linux 6.6


def test_the_connector_is_itself_and_a_child_on_its_connection_is_not(link: Link) -> None:
    link.out.send(b"before accept ")
    child = forked(lambda: link.out.send(b"child "))
    try:
        link.out.send(b"after")
        found = link.accept()
        assert found.receive(4096) == (b"before accept ", link.connector)
        data, writer = found.receive(4096)
        assert (data, writer.pid, writer is link.connector) == (b"child ", child, False)
        assert writer.alive()
        assert writer.identity != link.connector.identity
        assert found.receive(4096) == (b"after", link.connector)
    finally:
        end(child)


def test_two_writers_are_never_one_piece(link: Link) -> None:
    found = link.accept()
    child = forked(lambda: link.out.send(b"c" * 1000))
    try:
        for _ in range(3):
            link.out.send(b"p" * 10)
        pieces = [found.receive(1 << 20) for _ in range(2)]
        assert [(set(data), writer.pid) for data, writer in pieces] == [
            ({ord("c")}, child),
            ({ord("p")}, OURS),
        ]
    finally:
        end(child)


def test_a_descriptor_that_was_handed_on_speaks_for_whoever_writes(link: Link) -> None:
    found = link.accept()
    code = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.send(b'handed on'); sys.stdin.read()"
    fd = link.out.fileno()
    other = subprocess.Popen([sys.executable, "-c", code, str(fd)], pass_fds=(fd,), stdin=subprocess.PIPE)
    link.sock.setblocking(True)
    data, writer = found.receive(4096)
    assert (data, writer.pid) == (b"handed on", other.pid)
    other.communicate(b"", 10)


def test_a_writer_that_ended_is_nobody(link: Link) -> None:
    found = link.accept()
    end(forked(lambda: link.out.send(b"last words")))
    with pytest.raises(PeerError, match="gone"):
        found.receive(4096)


def test_a_writer_that_ended_and_waits_for_its_parent_is_nobody(link: Link) -> None:
    found = link.accept()
    child = forked(lambda: link.out.send(b"last words"))
    os.kill(child, 9)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    with pytest.raises(PeerError, match="gone"):
        found.receive(4096)
    os.waitpid(child, 0)


def test_a_connector_that_ended_before_accept_is_nobody(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def connect() -> None:
            kept.append(socket.socket(socket.AF_UNIX))
            kept[0].connect(path)

        kept: list[socket.socket] = []
        end(forked(connect))
        accepted, _ = listener.accept()
        with accepted, pytest.raises(PeerError, match="gone"):
            peer_of(accepted)


def test_an_exec_is_the_same_process(link: Link) -> None:
    """What it runs is another question, which attestation asks each time."""
    found = link.accept()
    code = (
        "import os, socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.send(b'1'); s.detach(); sys.stdin.readline();"
        "os.execv('/bin/bash', ['bash', '-c', f'echo >&{sys.argv[1]}; read x'])"
    )
    fd = link.out.fileno()
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(fd)], pass_fds=(fd,), stdin=subprocess.PIPE, bufsize=0
    )
    link.sock.setblocking(True)
    _, first = found.receive(10)
    assert other.stdin is not None
    other.stdin.write(b"go\n")
    data, second = found.receive(10)
    assert (data, second) == (b"\n", first)
    assert os.readlink(f"/proc/{other.pid}/exe") != os.path.realpath(sys.executable)
    other.communicate(b"end\n", 10)


def test_a_reused_number_is_another_process(link: Link) -> None:
    """pid_max pids would have to be spent to force it (ns_last_pid and clone3's set_tid are root's): the pidfd's inode is what counts."""
    link.accept()
    ours = link.connector
    fake = Peer(ours.pid, ours.uid, os.dup(ours.pidfd), ours.proc + 1, "another boot's")
    try:
        assert ours.is_at(ours.pid, ours.pidfd)
        if pidfs():
            assert not fake.is_at(ours.pid, ours.pidfd)
        assert not ours.is_at(ours.pid + 1, ours.pidfd)
    finally:
        fake.close()


def test_descriptors_that_come_along_are_closed(link: Link) -> None:
    found = link.accept()
    before = descriptors()
    r, w = os.pipe()
    for n in range(10_000):
        socket.send_fds(link.out, [b"x"], [r] * (1 + n % 3))
        assert found.receive(10) == (b"x", link.connector)
    socket.send_fds(link.out, [b"most"], [r] * 253)
    assert found.receive(10) == (b"most", link.connector)
    os.close(r)
    os.close(w)
    assert descriptors() == before


def test_control_data_that_was_cut_off_names_nobody_and_leaks_nothing(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = link.accept()
    before = descriptors()
    monkeypatch.setattr(senders, "_ROOM", socket.CMSG_SPACE(12) + socket.CMSG_SPACE(8))
    for _ in range(100):
        socket.send_fds(link.out, [b"x"], [link.out.fileno()] * 50)
        with pytest.raises(PeerError, match="no hold"):
            found.receive(10)
    assert descriptors() == before


def test_an_older_kernel_gives_the_number_alone(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its setsockopt knows no SO_PASSPIDFD."""
    monkeypatch.setattr(senders, "SO_PASSPIDFD", 0x7FFF)
    assert senders.rung() == PID
    with socket.socket(socket.AF_UNIX) as probe:
        assert senders.ask(probe) == PID
    found = link.accept()
    link.sock.setsockopt(socket.SOL_SOCKET, 76, 0)
    before = descriptors()
    link.out.send(b"mine")
    assert found.receive(10) == (b"mine", link.connector)
    child = forked(lambda: link.out.send(b"child"))
    assert found.receive(10)[1].pid == child
    end(child)
    end(forked(lambda: link.out.send(b"gone")))
    with pytest.raises(PeerError, match="gone"):
        found.receive(10)
    found.close()
    assert descriptors() == before


def test_nothing_to_read_and_the_end(link: Link) -> None:
    found = link.accept()
    with pytest.raises(BlockingIOError) as caught:
        found.receive(10)
    assert caught.value.errno == errno.EAGAIN
    link.out.shutdown(socket.SHUT_WR)
    assert found.receive(10)[0] == b""
