"""Who is at the other end of a Unix socket, by the kernel's word.

A peer is the process that connected, held by a pidfd taken from the socket itself, so that a pid given
to another process is never mistaken for it. What counts as *inside a session*, and may therefore reach
neither the approver nor the control socket: a process that carries a session mark, or that has
a marked ancestor, or that descends from a running supervisor. The supervisor itself is outside.

Who connected is not who writes: ``peers.senders`` tells the writer of each message.
"""

from __future__ import annotations

import functools
import os
import select
import socket
import struct
from collections.abc import Container

from remit_daemon.peers import mark

SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h, Linux 6.5
_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
MAX_ANCESTORS = 256  # a chain of parents longer than this counts as inside


class PeerError(Exception):
    """The peer is not one we talk to; the text says why."""


class Peer:
    """A process that connected to us or wrote us a message. Owns its pidfd until ``close``.

    ``proc`` is the pidfd's inode, ``identity`` what no other process of any boot shares. An exec changes neither: what
    the process runs is to be asked anew each time that it matters.
    """

    __slots__ = ("identity", "pid", "pidfd", "proc", "uid")

    def __init__(self, pid: int, uid: int, pidfd: int, proc: int, identity: str) -> None:
        self.pid = pid
        self.uid = uid
        self.pidfd = pidfd
        self.proc = proc
        self.identity = identity

    def alive(self) -> bool:
        """Tell whether the process still runs; its pidfd becomes readable when it ends."""
        return self.pidfd >= 0 and alive(self.pidfd)

    def is_at(self, pid: int, pidfd: int) -> bool:
        """Tell whether ``pid``, held by ``pidfd``, is this process; it may have ended where the kernel's pidfds have inodes of their own."""
        if self.pidfd < 0 or pid != self.pid:
            return False
        if pidfs():
            return os.fstat(pidfd).st_ino == self.proc
        return self.alive() and alive(pidfd)  # a number is held by one living process at a time

    def close(self) -> None:
        """Let go of the pidfd."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def alive(pidfd: int) -> bool:
    """Tell whether the process behind ``pidfd`` has not ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


@functools.cache
def pidfs() -> bool:
    """Tell whether a pidfd's inode names its process (pidfs, Linux 6.9); before, it is the one inode of all anonymous files."""
    pidfd, other = os.pidfd_open(os.getpid()), os.eventfd(0)
    try:
        return os.fstat(pidfd).st_ino != os.fstat(other).st_ino
    finally:
        os.close(pidfd)
        os.close(other)


def pid_of(pidfd: int) -> int:
    """Return the number of the process behind ``pidfd``, as its fdinfo has it (pidfd_open(2), proc_pid_fdinfo(5)).

    Raises PeerError when it is no pidfd, or the process has ended or is out of sight.
    """
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as f:
            found = [line.split()[1] for line in f if line.startswith("Pid:")]
    except (OSError, IndexError):
        found = []
    if not found:
        raise PeerError("this descriptor is no pidfd")
    if int(found[0]) <= 0:
        raise PeerError("the process has ended, or is in another process namespace")
    return int(found[0])


@functools.cache
def boot_id() -> str:
    """Return the kernel's id of this boot (proc(5), random/boot_id)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        return f.read().strip()


def identify(pid: int, pidfd: int) -> tuple[int, str]:
    """Return the pidfd's inode and an identity that no other process of any boot shares.

    The inode alone is unique since Linux 6.9 (pidfs); before, all pidfds share one, so the start time is added.
    Raises PeerError when the process is gone.
    """
    try:
        started = mark.stat_of(pid)[2]
        inode = os.fstat(pidfd).st_ino
    except OSError as e:
        raise PeerError(f"process {pid} is gone ({e.strerror})") from None
    if not alive(pidfd):
        raise PeerError(f"process {pid} is gone")
    return inode, f"{boot_id()}:{inode}:{started}"


def hold(pid: int, identity: str) -> int | None:
    """Return a pidfd of ``pid`` when it is still the process of ``identity``, else None."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        if identify(pid, pidfd)[1] == identity:
            return pidfd
    except PeerError:
        pass
    os.close(pidfd)
    return None


def peer_of(sock: socket.socket) -> Peer:
    """Return the process that connected ``sock``, an accepted Unix stream socket.

    Raises PeerError when it is another user's, or gone.
    """
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    if uid != os.getuid():
        raise PeerError(f"process {pid} belongs to user {uid}")
    if pid <= 0:
        raise PeerError("the peer is in another process namespace")
    try:
        pidfd = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        os.set_inheritable(pidfd, False)
    except OSError:
        # Before Linux 6.5. The pid may be reused between connect and here: the connection must still be open then.
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            raise PeerError(f"process {pid} is gone") from None
    try:
        inode, identity = identify(pid, pidfd)
    except PeerError:
        os.close(pidfd)
        raise
    return Peer(pid, uid, pidfd, inode, identity)


def session_marks(pid: int) -> tuple[int, int]:
    """Return the marks (the session's, the party's) of ``pid`` or of its nearest marked ancestor, or zeros."""
    for at in ancestors(pid):
        found = mark.marks_of(at)
        if found[0]:
            return found
    return 0, 0


def ancestors(pid: int) -> list[int]:
    """Return ``pid`` and its chain of parents, nearest first, as far as it can be followed."""
    chain: list[int] = []
    while pid > 0 and len(chain) < MAX_ANCESTORS:
        chain.append(pid)
        try:
            pid = mark.stat_of(pid)[1]
        except OSError:
            break
    return chain


def parents(pid: int, top: int) -> list[tuple[int, str, str]]:
    """Return (pid, comm, executable) of the processes above ``pid``, nearest first, below ``top``; for showing only.

    Nothing when ``top`` is not among its ancestors; what cannot be read is "".
    """
    above = ancestors(pid)[1:]
    if top not in above:
        return []
    found = []
    for one in above[: above.index(top)]:
        try:
            with open(f"/proc/{one}/comm", encoding="utf-8", errors="surrogateescape") as f:
                comm = f.read().rstrip("\n")
        except OSError:
            comm = ""
        try:
            exe = os.readlink(f"/proc/{one}/exe")
        except OSError:
            exe = ""
        found.append((one, comm, exe))
    return found


def supervisor_above(pid: int, supervisors: Container[int]) -> int:
    """Return the one of ``supervisors`` whose gateway ``pid`` can be, or 0: its unmarked child.

    An agent's process that became the supervisor's child carries the session's mark; nothing takes it off.
    """
    try:
        parent = mark.stat_of(pid)[1]
    except OSError:
        return 0
    return parent if parent in supervisors and not mark.tag_of(pid) else 0


def inside_session(pid: int, supervisors: Container[int]) -> bool:
    """Tell whether ``pid`` is inside a session: marked, below a marked process, or below one of ``supervisors``.

    A process that is gone, or whose ancestors cannot be told, counts as inside.
    """
    try:
        mark.stat_of(pid)
    except OSError:
        return True
    chain = ancestors(pid)
    if len(chain) >= MAX_ANCESTORS:
        return True
    return any(mark.tag_of(at) for at in chain) or any(at in supervisors for at in chain[1:])
