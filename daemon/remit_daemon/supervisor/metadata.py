"""What changes a file's mode, owner, times, extended attributes or length without opening it.

Landlock has no right for any of these but truncate, so all are done by us on the pinned object, never left to the
kernel. Calls on descriptors are mediated as well: a descriptor that was opened for reading lets its holder change the
mode.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from remit_daemon.kernel import calls
from remit_daemon.supervisor import target
from remit_daemon.supervisor.act import Act
from remit_daemon.supervisor.opens import int_of
from remit_daemon.supervisor.resolve import Pin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.supervisor.act import Effect, Note
    from remit_daemon.supervisor.resolve import Resolver

_XATTR_MAX = 65536  # XATTR_SIZE_MAX, <linux/limits.h>
_XATTR_NAME_MAX = 255
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_TIMESPECS = struct.Struct("qqqq")
_UTIME_NOW, _UTIME_OMIT = 0x3FFFFFFF, 0x3FFFFFFE


class Metadata:
    """The handlers."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def _on(
        self,
        note: Note,
        dirfd: int,
        address: int,
        change: Callable[[Pin], object],
        text: str,
        *,
        nofollow: bool = False,
        empty: bool = False,
        op: str = "metadata",
    ) -> Act | Effect:
        """Make the act of changing what a path names; ``empty`` permits an empty path (AT_EMPTY_PATH)."""
        path = calls.read_path(note.tid, address) if address or not empty else b""
        if not path and empty:
            if dirfd == calls.AT_FDCWD:
                path = b"."
            else:
                return self._on_fd(note, dirfd, change, text)
        pin = self._resolver.pin(note.tid, dirfd, path, nofollow)
        return self._act(pin, change, text, op)

    def _on_fd(self, note: Note, fd: int, change: Callable[[Pin], object], text: str) -> Act | Effect:
        if fd < 0:
            raise OSError(errno.EBADF, "bad descriptor")
        pin = Pin(target.take_fd(note.tid, fd))
        if not pin.path.startswith("/"):  # a pipe, socket or memfd: in no directory, its own
            try:
                change(pin)
            finally:
                target.let_go(pin.fd)
            return 0
        return self._act(pin, change, text, "metadata")

    def _act(self, pin: Pin, change: Callable[[Pin], object], text: str, op: str) -> Act:
        if self._resolver.on_proc(pin):
            pin.close()
            raise OSError(errno.EPERM, "not on procfs")

        def perform() -> Effect:
            change(pin)
            return 0

        return Act(
            op, ((op, pin.path),), perform, (pin,), note=text, pinned=pin.fd if op == "write" else None
        )

    # Mode.

    def chmod(self, note: Note) -> Act | Effect:
        """chmod(path, mode)"""
        return self._chmod(note, calls.AT_FDCWD, note.args[0], note.args[1], 0)

    def fchmodat(self, note: Note) -> Act | Effect:
        """fchmodat(dirfd, path, mode)"""
        return self._chmod(note, int_of(note.args[0]), note.args[1], note.args[2], 0)

    def fchmodat2(self, note: Note) -> Act | Effect:
        """fchmodat2(dirfd, path, mode, flags)"""
        a = note.args
        return self._chmod(note, int_of(a[0]), a[1], a[2], a[3] & 0xFFFFFFFF)

    def fchmod(self, note: Note) -> Act | Effect:
        """fchmod(fd, mode)"""
        mode = note.args[1] & 0o7777
        return self._on_fd(note, int_of(note.args[0]), _chmod(mode), f"mode {mode:04o}")

    def _chmod(self, note: Note, dirfd: int, address: int, mode: int, flags: int) -> Act | Effect:
        _known(flags)
        mode &= 0o7777
        return self._on(
            note,
            dirfd,
            address,
            _chmod(mode),
            f"mode {mode:04o}",
            nofollow=bool(flags & calls.AT_SYMLINK_NOFOLLOW),
            empty=bool(flags & calls.AT_EMPTY_PATH),
        )

    # Owner.

    def chown(self, note: Note) -> Act | Effect:
        """chown(path, uid, gid)"""
        a = note.args
        return self._chown(note, calls.AT_FDCWD, a[0], a[1], a[2], 0)

    def lchown(self, note: Note) -> Act | Effect:
        """lchown(path, uid, gid)"""
        a = note.args
        return self._chown(note, calls.AT_FDCWD, a[0], a[1], a[2], calls.AT_SYMLINK_NOFOLLOW)

    def fchownat(self, note: Note) -> Act | Effect:
        """fchownat(dirfd, path, uid, gid, flags)"""
        a = note.args
        return self._chown(note, int_of(a[0]), a[1], a[2], a[3], a[4] & 0xFFFFFFFF)

    def fchown(self, note: Note) -> Act | Effect:
        """fchown(fd, uid, gid)"""
        a = note.args
        uid, gid = int_of(a[1]), int_of(a[2])
        return self._on_fd(note, int_of(a[0]), _chown(uid, gid), f"owner {uid}:{gid}")

    def _chown(self, note: Note, dirfd: int, address: int, uid: int, gid: int, flags: int) -> Act | Effect:
        _known(flags)
        uid, gid = int_of(uid), int_of(gid)
        return self._on(
            note,
            dirfd,
            address,
            _chown(uid, gid),
            f"owner {uid}:{gid}",
            nofollow=bool(flags & calls.AT_SYMLINK_NOFOLLOW),
            empty=bool(flags & calls.AT_EMPTY_PATH),
        )

    # Times. All four calls end in nanosecond pairs: (seconds, nanoseconds) of access and of modification.

    def utime(self, note: Note) -> Act | Effect:
        """utime(path, struct utimbuf *)"""
        times = None
        if note.args[1]:
            access, modified = struct.unpack("qq", calls.read_memory(note.tid, note.args[1], 16))
            times = (access, 0, modified, 0)
        return self._on(note, calls.AT_FDCWD, note.args[0], _utime(times), "times")

    def utimes(self, note: Note) -> Act | Effect:
        """utimes(path, struct timeval[2])"""
        times = self._timevals(note, note.args[1])
        return self._on(note, calls.AT_FDCWD, note.args[0], _utime(times), "times")

    def futimesat(self, note: Note) -> Act | Effect:
        """futimesat(dirfd, path, struct timeval[2]); without a path the descriptor itself"""
        a = note.args
        change = _utime(self._timevals(note, a[2]))
        if not a[1]:
            return self._on_fd(note, int_of(a[0]), change, "times")
        return self._on(note, int_of(a[0]), a[1], change, "times")

    def utimensat(self, note: Note) -> Act | Effect:
        """utimensat(dirfd, path, struct timespec[2], flags); without a path the descriptor itself"""
        a = note.args
        flags = a[3] & 0xFFFFFFFF
        _known(flags)
        times = None
        if a[2]:
            times = _TIMESPECS.unpack(calls.read_memory(note.tid, a[2], 32))
            if times[1] == times[3] == _UTIME_OMIT:
                return 0
        change = _utime(times)
        if not a[1]:
            return self._on_fd(note, int_of(a[0]), change, "times")
        return self._on(
            note,
            int_of(a[0]),
            a[1],
            change,
            "times",
            nofollow=bool(flags & calls.AT_SYMLINK_NOFOLLOW),
            empty=bool(flags & calls.AT_EMPTY_PATH),
        )

    def _timevals(self, note: Note, address: int) -> tuple[int, int, int, int] | None:
        if not address:
            return None
        a, us, m, mus = _TIMESPECS.unpack(calls.read_memory(note.tid, address, 32))
        if not (0 <= us < 1_000_000 and 0 <= mus < 1_000_000):
            raise OSError(errno.EINVAL, "microseconds out of range")
        return (a, us * 1000, m, mus * 1000)

    # Extended attributes.

    def setxattr(self, note: Note) -> Act | Effect:
        """setxattr(path, name, value, size, flags)"""
        return self._setxattr(note, calls.AT_FDCWD, note.args[0], False, *note.args[1:5])

    def lsetxattr(self, note: Note) -> Act | Effect:
        """lsetxattr(path, name, value, size, flags)"""
        return self._setxattr(note, calls.AT_FDCWD, note.args[0], True, *note.args[1:5])

    def fsetxattr(self, note: Note) -> Act | Effect:
        """fsetxattr(fd, name, value, size, flags)"""
        change, text = self._set_change(note, *note.args[1:5])
        return self._on_fd(note, int_of(note.args[0]), change, text)

    def setxattrat(self, note: Note) -> Act | Effect:
        """setxattrat(dirfd, path, at_flags, name, struct xattr_args *, size)"""
        a = note.args
        if a[5] != 16:
            raise OSError(errno.EINVAL if a[5] < 16 else errno.E2BIG, "xattr_args of another kernel")
        value, size, flags = struct.unpack("QII", calls.read_memory(note.tid, a[4], 16))
        return self._setxattr(note, int_of(a[0]), a[1], *self._at_flags(a[2]), a[3], value, size, flags)

    def _at_flags(self, flags: int) -> tuple[bool]:
        flags &= 0xFFFFFFFF
        _known(flags)
        if flags & calls.AT_EMPTY_PATH:
            raise OSError(errno.EOPNOTSUPP, "by descriptor: use fsetxattr")
        return (bool(flags & calls.AT_SYMLINK_NOFOLLOW),)

    def _setxattr(
        self,
        note: Note,
        dirfd: int,
        address: int,
        nofollow: bool,
        name: int,
        value: int,
        size: int,
        flags: int,
    ) -> Act | Effect:
        change, text = self._set_change(note, name, value, size, flags)
        return self._on(note, dirfd, address, change, text, nofollow=nofollow)

    def _set_change(
        self, note: Note, name: int, value: int, size: int, flags: int
    ) -> tuple[Callable[[Pin], object], str]:
        if size > _XATTR_MAX:
            raise OSError(errno.E2BIG, "attribute too big")
        key = self._xattr_name(note, name)
        data = calls.read_memory(note.tid, value, size) if size else b""
        flags &= 0xFFFFFFFF

        def change(pin: Pin) -> None:
            os.setxattr(_path(pin), key, data, flags)

        return change, f"set {os.fsdecode(key)}"

    def removexattr(self, note: Note) -> Act | Effect:
        """removexattr(path, name)"""
        return self._removexattr(note, calls.AT_FDCWD, note.args[0], note.args[1], False)

    def lremovexattr(self, note: Note) -> Act | Effect:
        """lremovexattr(path, name)"""
        return self._removexattr(note, calls.AT_FDCWD, note.args[0], note.args[1], True)

    def fremovexattr(self, note: Note) -> Act | Effect:
        """fremovexattr(fd, name)"""
        key = self._xattr_name(note, note.args[1])
        return self._on_fd(
            note,
            int_of(note.args[0]),
            lambda pin: os.removexattr(_path(pin), key),
            f"remove {os.fsdecode(key)}",
        )

    def removexattrat(self, note: Note) -> Act | Effect:
        """removexattrat(dirfd, path, at_flags, name)"""
        a = note.args
        return self._removexattr(note, int_of(a[0]), a[1], a[3], *self._at_flags(a[2]))

    def _removexattr(self, note: Note, dirfd: int, address: int, name: int, nofollow: bool) -> Act | Effect:
        key = self._xattr_name(note, name)
        return self._on(
            note,
            dirfd,
            address,
            lambda pin: os.removexattr(_path(pin), key),
            f"remove {os.fsdecode(key)}",
            nofollow=nofollow,
        )

    def _xattr_name(self, note: Note, address: int) -> bytes:
        name = calls.read_path(note.tid, address)
        if not 0 < len(name) <= _XATTR_NAME_MAX:
            raise OSError(errno.ERANGE, "attribute name")
        return name

    def file_setattr(self, note: Note) -> Act | Effect:
        """file_setattr(2): file-system flags such as append-only; nothing that an agent needs."""
        raise OSError(errno.EOPNOTSUPP, "file-system flags")

    # Length.

    def truncate(self, note: Note) -> Act | Effect:
        """truncate(path, length)"""
        length = note.args[1] - (1 << 64) if note.args[1] >> 63 else note.args[1]
        if length < 0:
            raise OSError(errno.EINVAL, "negative length")

        def change(pin: Pin) -> None:
            if stat.S_ISDIR(pin.mode):
                raise OSError(errno.EISDIR, "is a directory")
            if not stat.S_ISREG(pin.mode):
                raise OSError(errno.EINVAL, "not a file")
            os.truncate(_path(pin), length)

        return self._on(note, calls.AT_FDCWD, note.args[0], change, f"to {length}", op="write")


def _known(flags: int) -> None:
    if flags & ~(calls.AT_SYMLINK_NOFOLLOW | calls.AT_EMPTY_PATH):
        raise OSError(errno.EINVAL, "unknown flags")


def _path(pin: Pin) -> str:
    """Return a path that leads to the pinned object itself; a pinned link has none."""
    if stat.S_ISLNK(pin.mode):
        raise OSError(errno.EOPNOTSUPP, "a symbolic link")
    return f"/proc/self/fd/{pin.fd}"


def _chmod(mode: int) -> Callable[[Pin], None]:
    def change(pin: Pin) -> None:
        if mode & _SPECIAL and stat.S_ISREG(pin.mode):
            raise OSError(errno.EPERM, "set-id bits would let others act as the person")
        os.chmod(_path(pin), mode)

    return change


def _chown(uid: int, gid: int) -> Callable[[Pin], None]:
    def change(pin: Pin) -> None:
        calls.call("fchownat", pin.fd, b"", uid, gid, calls.AT_EMPTY_PATH)

    return change


def _utime(times: tuple[int, ...] | None) -> Callable[[Pin], None]:
    raw = _TIMESPECS.pack(*times) if times else None

    def change(pin: Pin) -> None:
        if stat.S_ISLNK(pin.mode):
            calls.call("utimensat", pin.fd, b"", raw, calls.AT_EMPTY_PATH)
        else:
            calls.call("utimensat", calls.AT_FDCWD, os.fsencode(_path(pin)), raw, 0)

    return change
