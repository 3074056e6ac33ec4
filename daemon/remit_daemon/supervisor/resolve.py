"""From a target's path to the very object: pinned by an O_PATH descriptor, named by its real path.

What is decided on is always the pinned object's own path as the kernel tells it, never the target's string: the
target can change its string, and the links along it, at any time. The kernel resolves (openat2) with magic links
refused, because ``/proc/self/fd/3`` resolved here would be *our* descriptor 3. A path that meets one is walked
component by component instead, with the target's own ``/proc`` directory in the place of ``self``.
"""

from __future__ import annotations

import errno
import os
import stat

from remit_daemon.kernel import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remit_daemon.supervisor.target import Targets

_PATH = os.O_PATH | os.O_CLOEXEC
_NOFOLLOW = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40  # as the kernel's MAXSYMLINKS
_MET_IN_PROC = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ESRCH)
_MAX_STEPS = 4096
_DELETED = " (deleted)"
_FD_LINK = "/proc/self/fd/%d"
_open = os.open
_readlink = os.readlink
_close = os.close


class Pin:
    """An object held by an O_PATH descriptor. Close it."""

    __slots__ = ("_st", "fd", "path")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.path = real_path(fd)
        self._st: os.stat_result | None = None

    @property
    def st(self) -> os.stat_result:
        """The object's status as of its first use."""
        if self._st is None:
            self._st = os.fstat(self.fd)
        return self._st

    @property
    def mode(self) -> int:
        return self.st.st_mode

    def close(self) -> None:
        """Let the object go; harmless when done twice."""
        if self.fd >= 0:
            _close(self.fd)
            self.fd = -1


class Place:
    """A name in a pinned directory, whether or not something is there: what create, unlink and rename act on."""

    __slots__ = ("name", "parent", "path", "slash")

    def __init__(self, parent: Pin, name: bytes, slash: bool) -> None:
        self.parent = parent
        self.name = name
        self.slash = slash  # the target wrote a trailing slash: only a directory will do
        self.path = join(parent.path, os.fsdecode(name))

    def stat(self) -> os.stat_result | None:
        """Return the status of what has this name, links not followed; None when nothing has."""
        try:
            return os.lstat(self.name, dir_fd=self.parent.fd)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Let the directory go."""
        self.parent.close()


def join(directory: str, name: str) -> str:
    """Return the path of ``name`` in ``directory``."""
    return directory + name if directory == "/" else directory + "/" + name


def real_path(fd: int) -> str:
    """Return the path of the object behind ``fd`` as the kernel names it.

    For what was deleted, its last path. What lives in no directory (a pipe, a memfd) has a path that does not
    begin with ``/``.
    """
    path = _readlink(_FD_LINK % fd)
    if path.endswith(_DELETED):
        try:
            there, here = os.lstat(path), os.fstat(fd)
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return path  # somebody's file is really named so
        except OSError:
            pass
        return path[: -len(_DELETED)]
    return path


class Resolver:
    """Resolves paths as one session's threads would."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._proc_dev = os.stat("/proc").st_dev

    def base(self, tid: int, dirfd: int) -> int:
        """Return an O_PATH descriptor of where a relative path of ``tid`` starts. Raises OSError (EBADF)."""
        if dirfd == calls.AT_FDCWD:
            return _open(f"/proc/{tid}/cwd", _PATH)
        if dirfd < 0:
            raise OSError(errno.EBADF, "bad directory descriptor")
        try:
            return _open(f"/proc/{tid}/fd/{dirfd}", _PATH)
        except FileNotFoundError:
            raise OSError(errno.EBADF, "bad directory descriptor") from None

    def on_proc(self, pin: Pin) -> bool:
        """Say whether the object is procfs's: those are never opened on behalf."""
        return pin.st.st_dev == self._proc_dev

    def pin(self, tid: int, dirfd: int, path: bytes, nofollow: bool = False, resolve: int = 0) -> Pin:
        """Pin the object that ``path`` names for thread ``tid``.

        ``resolve`` are RESOLVE_* flags of the target's own openat2. Raises OSError as the target's call would.
        """
        if not path:
            raise OSError(errno.ENOENT, "empty path")
        absolute = path[0] == 47 and not resolve & (calls.RESOLVE_IN_ROOT | calls.RESOLVE_BENEATH)
        base = calls.AT_FDCWD if absolute else self.base(tid, dirfd)
        try:
            return Pin(self._open(tid, base, path, nofollow, resolve))
        finally:
            if base != calls.AT_FDCWD:
                _close(base)

    def _open(self, tid: int, base: int, path: bytes, nofollow: bool, resolve: int) -> int:
        flags = _NOFOLLOW if nofollow else _PATH
        try:
            return calls.openat2(base, path, flags, 0, resolve | calls.RESOLVE_NO_MAGICLINKS)
        except OSError as e:
            if resolve or not self._may_be_ours(e.errno or 0, base, path, flags):
                raise
        return self._walk(tid, base, path, nofollow)

    def _may_be_ours(self, code: int, base: int, path: bytes, flags: int) -> bool:
        """Say whether resolving may have failed because ``/proc/self`` was ours: only through a link can it be met."""
        if code == errno.ELOOP:
            return True
        if code not in _MET_IN_PROC:
            return False
        try:
            _close(calls.openat2(base, path, flags, 0, calls.RESOLVE_NO_SYMLINKS))
        except OSError as e:
            return e.errno == errno.ELOOP
        return True

    def walk(self, tid: int, dirfd: int, path: bytes) -> Pin:
        """Pin what ``path`` means with the target's own process in the place of ``/proc/self``. Raises OSError."""
        base = calls.AT_FDCWD if path[:1] == b"/" else self.base(tid, dirfd)
        try:
            return Pin(self._walk(tid, base, path, False))
        finally:
            if base != calls.AT_FDCWD:
                _close(base)

    def place(self, tid: int, dirfd: int, path: bytes) -> Place:
        """Pin the directory that ``path``'s last component is in.

        Raises OSError as a call that creates or removes a name would: EEXIST for a path that ends in ``.`` or
        ``..`` or is ``/`` (callers that remove turn it into theirs).
        """
        if not path:
            raise OSError(errno.ENOENT, "empty path")
        stripped = path.rstrip(b"/")
        head, _, name = stripped.rpartition(b"/")
        if name in (b"", b".", b".."):
            raise OSError(errno.EEXIST, "no name")
        if len(name) > 255:
            raise OSError(errno.ENAMETOOLONG, "name too long")
        directory = head if head else (b"/" if stripped[:1] == b"/" else b".")
        parent = self.pin(tid, dirfd, directory)
        if not stat.S_ISDIR(parent.mode):
            parent.close()
            raise OSError(errno.ENOTDIR, "not a directory")
        return Place(parent, name, len(stripped) != len(path))

    def _walk(self, tid: int, base: int, path: bytes, nofollow: bool) -> int:
        """Resolve by hand, as path_resolution(7) says, magic links of the session's own processes included."""
        current = _open("/", _PATH) if path[:1] == b"/" else os.dup(base)  # dup: close-on-exec, PEP 446
        todo = path.split(b"/")[::-1]
        links = steps = 0
        try:
            while todo:
                name = todo.pop()
                steps += 1
                if steps > _MAX_STEPS:
                    raise OSError(errno.ELOOP, "path too long to walk")
                if name in (b"", b"."):
                    if not todo and name == b"" and not stat.S_ISDIR(os.fstat(current).st_mode):
                        raise OSError(errno.ENOTDIR, "not a directory")
                    continue
                step = _open(name, _NOFOLLOW, dir_fd=current)
                try:
                    st = os.fstat(step)
                    if not stat.S_ISLNK(st.st_mode) or (nofollow and not any(todo)):
                        current, step = step, current
                        continue
                    links += 1
                    if links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, "too many links")
                    magic = self._magic(tid, current, name) if st.st_dev == self._proc_dev else None
                    if isinstance(magic, int):
                        current, old = magic, current
                        _close(old)
                        continue
                    text = magic if magic is not None else _readlink(b"", dir_fd=step)
                    if text[:1] == b"/":
                        _close(current)
                        current = _open("/", _PATH)
                    todo += text.split(b"/")[::-1]
                finally:
                    _close(step)
        except BaseException:
            _close(current)
            raise
        return current

    def _magic(self, tid: int, directory: int, name: bytes) -> int | bytes | None:
        """Resolve the procfs link ``name`` in ``directory``: a descriptor for a magic link, the text for ``self``,
        None for an ordinary link. Raises OSError (EACCES) for a process outside the session."""
        where = _readlink(_FD_LINK % directory)
        tgid = self._targets.process(tid).tgid
        if where == "/proc":
            if name == b"self":
                return b"%d" % tgid
            if name == b"thread-self":
                return b"%d/task/%d" % (tgid, tid)
            return None
        parts = where.split("/")  # '', 'proc', PID, …
        if len(parts) < 3 or parts[1] != "proc" or not parts[2].isdigit():
            return None
        if not self._targets.inside(int(parts[2])):
            raise OSError(errno.EACCES, "a process outside the session")
        return _open(where + "/" + os.fsdecode(name), _PATH)
