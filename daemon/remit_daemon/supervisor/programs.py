"""execve and execveat: identify, decide, record.

What is decided on is the pinned file; what runs is what the kernel finds by the target's string a moment later, and an
interpreter or ``ld.so`` runs any bytes that it may read. So exec rules are a record and a guide, not a boundary: the
boundary is that whatever runs stays in the session. The file is hashed through its pinned descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from remit_daemon.kernel import calls
from remit_daemon.supervisor.act import CONTINUE, Act, Beside
from remit_daemon.supervisor.opens import int_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remit_daemon.supervisor.act import Effect, Note
    from remit_daemon.supervisor.hashes import Hashes
    from remit_daemon.supervisor.resolve import Pin, Resolver
    from remit_daemon.supervisor.target import Targets

_INLINE = 1 << 20  # bytes hashed in the loop itself (about a millisecond)
_MAX_ARGS = 128  # arguments that are decided on and recorded
_SHEBANG = 256  # BINPRM_BUF_SIZE, <linux/binfmts.h>


class Programs:
    """The handlers of exec."""

    def __init__(self, resolver: Resolver, targets: Targets, hashes: Hashes) -> None:
        self._resolver = resolver
        self._targets = targets
        self._hashes = hashes

    def execve(self, note: Note) -> Act | Effect:
        """execve(path, argv, envp)"""
        return self._exec(note, calls.AT_FDCWD, note.args[0], note.args[1], 0)

    def execveat(self, note: Note) -> Act | Effect:
        """execveat(dirfd, path, argv, envp, flags)"""
        a = note.args
        return self._exec(note, int_of(a[0]), a[1], a[2], a[4] & 0xFFFFFFFF)

    def _exec(self, note: Note, dirfd: int, address: int, argv: int, flags: int) -> Act | Effect:
        path = calls.read_path(note.tid, address)
        if not path and flags & calls.AT_EMPTY_PATH:
            path = b"/proc/self/fd/%d" % dirfd
        pin = self._resolver.pin(note.tid, dirfd, path, bool(flags & calls.AT_SYMLINK_NOFOLLOW))
        try:
            act = self._program(note, pin, argv)
        finally:
            pin.close()
        return act

    def _program(self, note: Note, pin: Pin, argv: int) -> Act:
        if not stat.S_ISREG(pin.mode):
            raise OSError(errno.EACCES, "not a program")
        arguments = self._arguments(note.tid, argv)
        if not pin.path.startswith("/"):
            # A memfd: a program that no file holds. Nothing could say afterwards what ran.
            raise OSError(errno.EACCES, "a program without a file")
        digest = self._hash(pin)
        accesses = [("exec", pin.path)]
        text = ""
        interpreter = self._interpreter(pin)
        if interpreter:
            text = "by " + os.fsdecode(interpreter)
            try:
                by = self._resolver.pin(note.tid, calls.AT_FDCWD, interpreter)
            except OSError:
                pass  # the kernel will say so
            else:
                try:
                    text = f"by {by.path} {self._hash(by)}"
                    accesses.append(("execute", by.path))
                finally:
                    by.close()
        process = self._targets.process(note.tid)

        def perform() -> Effect:
            process.exe_known = False
            return CONTINUE

        return Act("exec", tuple(accesses), perform, argv=arguments, sha256=digest, note=text)

    def _hash(self, pin: Pin) -> str:
        known = self._hashes.get(pin.st)
        if known is not None:
            return known
        if pin.st.st_size <= _INLINE:
            return self._hashes.compute(pin.fd)
        fd = os.dup(pin.fd)

        def work() -> None:
            try:
                self._hashes.compute(fd)
            finally:
                os.close(fd)

        raise Beside(work)

    def _interpreter(self, pin: Pin) -> bytes:
        """Return the interpreter that a script names in its first line; empty for anything else."""
        try:
            fd = os.open(f"/proc/self/fd/{pin.fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            head = os.read(fd, _SHEBANG)
        finally:
            os.close(fd)
        if head[:2] != b"#!":
            return b""
        # As fs/binfmt_script.c: blanks are spaces and tabs, and a NUL ends the name too.
        line = head[2:].split(b"\n", 1)[0].replace(b"\t", b" ").strip(b" ")
        return line.split(b" ", 1)[0].split(b"\0", 1)[0]

    def _arguments(self, tid: int, address: int) -> list[str]:
        if not address:
            return []
        found: list[str] = []
        while len(found) < _MAX_ARGS:
            # To the end of the page at most, which is surely mapped when its first byte is.
            room = min(_MAX_ARGS * 8, calls.PAGE - (address & (calls.PAGE - 1))) // 8 * 8 or 8
            raw = calls.read_memory(tid, address, room)
            for (pointer,) in struct.iter_unpack("Q", raw):
                if not pointer:
                    return found
                try:
                    found.append(os.fsdecode(calls.read_path(tid, pointer)))
                except OSError as e:
                    if e.errno != errno.ENAMETOOLONG:
                        raise
                    found.append("…")
            address += room
        return [*found, "…"]
