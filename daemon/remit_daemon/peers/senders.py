"""Who wrote each message on a Unix stream socket, by the kernel's word.

``SO_PEERCRED`` names who connected; a descriptor that was inherited or handed on is written to by somebody else. With ``SO_PASSCRED``
and ``SO_PASSPIDFD`` on the receiving side the kernel notes the writer with each piece of the stream, gives his pid (SCM_CREDENTIALS) and
a pidfd (SCM_PIDFD) with what is received, and never joins what two processes wrote into one receive (unix(7), SO_PASSCRED;
net/unix/af_unix.c, "never glue messages from different writers"; tried on 6.18, also for what was written before accept). A listening
socket hands both options on, so they are set there and again on what it accepts.

Two rungs, the lower one reported wherever it is used: PIDFD (Linux 6.5), where the writer is held by the pidfd that came along, and PID, where a
pidfd is opened by the number that came along: a writer that ended at once may then be taken for the process that got its number.
Nothing goes lower: the number has been there since Linux 2.2.
"""

from __future__ import annotations

import os
import socket
import struct

from remit_daemon.peers.process import Peer, PeerError, identify

SO_PASSPIDFD = 76  # include/uapi/asm-generic/socket.h, Linux 6.5
SCM_PIDFD = 4  # include/linux/socket.h, Linux 6.5
PIDFD, PID = "pidfd", "pid"

_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_MAX_RIGHTS = 253  # SCM_MAX_FD, <net/scm.h>: descriptors come before the pidfd and must not crowd it out
_ROOM = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(4) + socket.CMSG_SPACE(4 * _MAX_RIGHTS)


def ask(sock: socket.socket) -> str:
    """Have the kernel name the writer of all that ``sock``, a listening or accepted Unix socket, receives. Returns PIDFD or PID."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
    except OSError:
        return PID
    return PIDFD


def rung() -> str:
    """Return what this kernel tells of a message's writer, PIDFD or PID, by trying it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wanted = ask(ours)
        theirs.send(b"?")
        _, writer = _receive(ours, 1)
        if writer.pidfd >= 0:
            os.close(writer.pidfd)
            return wanted
        return PID


class _Writer:
    __slots__ = ("pid", "pidfd", "uid")

    def __init__(self) -> None:
        self.pid = 0
        self.uid = -1
        self.pidfd = -1


def _receive(sock: socket.socket, size: int) -> tuple[bytes, _Writer]:
    """Return what one process wrote, at most ``size`` bytes, and who. Descriptors that came along are closed. Raises OSError."""
    data, ancillary, _, _ = sock.recvmsg(size, _ROOM, socket.MSG_CMSG_CLOEXEC)
    writer = _Writer()
    for level, kind, raw in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_RIGHTS:
            for fd in struct.unpack(f"{len(raw) // 4}i", raw[: len(raw) // 4 * 4]):
                os.close(fd)
        elif kind == SCM_PIDFD and len(raw) == 4:
            (writer.pidfd,) = struct.unpack("i", raw)  # negative: an error number in its place
        elif kind == socket.SCM_CREDENTIALS and len(raw) == _UCRED.size:
            writer.pid, writer.uid, _ = _UCRED.unpack(raw)
    return data, writer


class Senders:
    """Reads one accepted socket and tells the writer of each piece. Owns the peers that it returns, but not ``connector``."""

    def __init__(self, sock: socket.socket, connector: Peer) -> None:
        self._sock = sock
        self._connector = connector
        self._last = connector
        self._rung = ask(sock)

    def receive(self, size: int) -> tuple[bytes, Peer]:
        """Return up to ``size`` bytes and the process that wrote them: ``connector`` itself when it is he. Empty: the end.

        The peer is good until the next call that finds another. Raises BlockingIOError and other OSErrors of recvmsg(2), and
        PeerError when the writer is another user's, in another process namespace, or gone.
        """
        data, writer = _receive(self._sock, size)
        try:
            return data, self._last if not data else self._known(writer)
        finally:
            if writer.pidfd >= 0:
                os.close(writer.pidfd)

    def _known(self, writer: _Writer) -> Peer:
        if writer.pid <= 0:
            raise PeerError("the writer of a message is in another process namespace")
        if writer.uid != os.getuid():
            raise PeerError(f"process {writer.pid} belongs to user {writer.uid}")
        if writer.pidfd < 0:
            if self._rung == PIDFD:
                raise PeerError(f"the kernel gives no hold on process {writer.pid}, which wrote a message")
            try:
                writer.pidfd = os.pidfd_open(writer.pid)
            except OSError:
                raise PeerError(f"process {writer.pid} is gone") from None
        for known in (self._last, self._connector):
            if known.is_at(writer.pid, writer.pidfd):
                break
        else:
            inode, identity = identify(writer.pid, writer.pidfd)
            known = Peer(writer.pid, writer.uid, writer.pidfd, inode, identity)
            writer.pidfd = -1  # taken over
        if known is not self._last:
            self._forget()
            self._last = known
        return known

    def _forget(self) -> None:
        if self._last is not self._connector:
            self._last.close()

    def close(self) -> None:
        """Let go of the last writer."""
        self._forget()
        self._last = self._connector
