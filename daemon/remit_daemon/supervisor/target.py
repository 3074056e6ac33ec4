"""What the supervisor learns of a target: its strings, directories, descriptors, umask and membership.

A notification names a thread (TID); all that is read here is read while that thread waits in the kernel, and
``ID_VALID`` afterwards says whether it was that thread all along (seccomp_unotify(2)).
"""

from __future__ import annotations

import _thread
import errno
import os

from remit_daemon.kernel import calls
from remit_daemon.peers.mark import marks_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # `signal` imports `enum`, and supervisors start often

_SOL_SOCKET, _SO_LINGER = 1, 13  # <asm-generic/socket.h>
_MAX_KNOWN = 512  # threads remembered, each process with a descriptor; beyond, all are read again


class Process:
    """A process of the session as far as the supervisor needs it again; its pidfd keeps the number honest."""

    __slots__ = ("exe", "exe_known", "inode", "pidfd", "tgid", "umask")

    def __init__(self, tgid: int, umask: int, pidfd: int) -> None:
        self.tgid = tgid
        self.umask = umask
        self.pidfd = pidfd
        # Unique for a boot since Linux 6.9 (pidfs); before, the same for all, and it says nothing.
        self.inode = str(os.fstat(pidfd).st_ino)
        self.exe = ""
        self.exe_known = False

    def alive(self) -> bool:
        """Say whether the number still means this process (a zombie keeps its own)."""
        try:
            signal.pidfd_send_signal(self.pidfd, 0)
        except OSError:
            return False
        return True


class Targets:
    """The processes seen so far, by TID. Numbers are reused, so each look-up makes sure that it is still the same."""

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self._by_tid: dict[int, Process] = {}

    def process(self, tid: int) -> Process:
        """Return the process of thread ``tid``. Raises OSError (ESRCH) when it is gone."""
        known = self._by_tid.get(tid)
        if known is not None:
            tgid = known.tgid
            if known.alive() and (tid == tgid or os.path.exists(f"/proc/{tgid}/task/{tid}")):
                return known
            del self._by_tid[tid]
        if len(self._by_tid) >= _MAX_KNOWN:
            self.forget()
        tgid, umask = _status(tid)
        process = self._by_tid.get(tgid) if tgid != tid else None
        if process is None or not process.alive():
            process = Process(tgid, umask, calls.pidfd_open(tgid))
            self._by_tid[tgid] = process
        self._by_tid[tid] = process
        return process

    def forget(self) -> None:
        """Let go of the processes seen so far; each is read again when it is seen again."""
        for process in set(self._by_tid.values()):
            os.close(process.pidfd)
        self._by_tid.clear()

    def umask_changed(self, tid: int, mask: int) -> None:
        """Take note of an umask(2) about to happen. Processes that share their file-system state
        (CLONE_FS without CLONE_THREAD) are read anew, so nobody's stale mask is used."""
        process = self.process(tid)
        self.forget()
        fresh = self.process(tid)
        fresh.umask = mask & 0o777
        fresh.exe, fresh.exe_known = process.exe, process.exe_known

    def exe(self, process: Process) -> str:
        """Return the path of the process's executable, for the record; empty when it cannot be read."""
        if not process.exe_known:
            try:
                process.exe = os.readlink(f"/proc/{process.tgid}/exe")
            except OSError:
                process.exe = ""
            process.exe_known = True
        return process.exe

    def inside(self, pid: int) -> bool:
        """Say whether process ``pid`` belongs to this session, or to a sub-session of it; one of a sub-session has only its own."""
        return self.tag in marks_of(pid)


def _status(tid: int) -> tuple[int, int]:
    try:
        fd = os.open(f"/proc/{tid}/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise OSError(errno.ESRCH, "the target is gone") from None
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    umask = tgid = 0
    for line in text.split(b"\n", 8):
        if line.startswith(b"Umask:"):
            umask = int(line[6:], 8)
        elif line.startswith(b"Tgid:"):
            tgid = int(line[5:])
    return tgid, umask


def comm(pid: int) -> str:
    """Return the name the process gives itself, for display; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as f:
            return f.read(64).rstrip(b"\n").decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def take_fd(tid: int, fd: int) -> int:
    """Return a duplicate of descriptor ``fd`` of thread ``tid``.

    The descriptor is taken from the thread's own table, which clone(CLONE_VM without CLONE_FILES) can make
    differ from its process's; kernels before 6.9 know only the process. Raises OSError.
    """
    try:
        pidfd = calls.pidfd_open(tid, calls.PIDFD_THREAD)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        pidfd = calls.pidfd_open(_status(tid)[0])
    try:
        return calls.pidfd_getfd(pidfd, fd)
    finally:
        os.close(pidfd)


def let_go(fd: int) -> None:
    """Close a duplicate of a target's socket, beside the loop if that may wait.

    When the target has closed its own, ours is the last, and with SO_LINGER its close waits for the peer (socket(7)).
    """
    try:
        lingers = calls.socket_option(fd, _SOL_SOCKET, _SO_LINGER)
    except OSError:
        lingers = 0  # no socket
    try:
        if lingers:
            _thread.start_new_thread(os.close, (fd,))
            return
    except RuntimeError:
        pass  # no thread can be had: it may wait
    os.close(fd)


def terminal_of(tid: int) -> str:
    """Return the device of the controlling terminal of ``tid``. Raises OSError (ENXIO: it has none that we know)."""
    with open(f"/proc/{tid}/stat", "rb") as f:
        number = int(f.read().rpartition(b")")[2].split()[4])
    # proc_pid_stat(5): the minor in bits 31-20 and 7-0, the major in 15-8; pseudo-terminals are majors 136 to 143.
    major, minor = number >> 8 & 0xFF, number >> 12 & 0xFFF00 | number & 0xFF
    if not 136 <= major <= 143:
        raise OSError(errno.ENXIO, "no pseudo-terminal")
    return f"/dev/pts/{(major - 136) * 256 + minor}"
