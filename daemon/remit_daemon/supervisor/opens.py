"""open, openat, openat2 and creat.

A read whose object lies in a static zone is left to the kernel. Anything else is pinned, decided on by its real path,
reopened by us through the pin and given to the target: a write in a static zone as well, so that the record names the file
that was really opened, and not the one that the target's string named a moment before. procfs and ``/dev/tty`` mean something else to every process,
so they are never opened on behalf: the kernel does it, under Landlock, or they are refused.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from os import readlink

from remit_daemon.kernel import calls
from remit_daemon.kernel.calls import is_link, path_reader, read_path
from remit_daemon.supervisor import target
from remit_daemon.supervisor.act import CONTINUE, Act, Again, Descriptor
from remit_daemon.supervisor.authority import LIST, READ, WRITE
from remit_daemon.supervisor.resolve import Pin, join
from remit_policy import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remit_daemon.supervisor.act import Effect, Note
    from remit_daemon.supervisor.authority import Authority
    from remit_daemon.supervisor.injected import Injected
    from remit_daemon.supervisor.record import Journal
    from remit_daemon.supervisor.resolve import Place, Resolver
    from remit_daemon.supervisor.target import Targets

_CHANGES = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | calls.O_TMPFILE
_CREATING = os.O_CREAT | os.O_EXCL
# What a pinned object is reopened without: O_NOFOLLOW would refuse the descriptor's own link.
_NOT_AGAIN = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_EXTRA = os.O_CLOEXEC | os.O_NOCTTY
_MAX_KNOWN = 10_000  # paths and directories; a megabyte or two
_HOW_MAX = 4096  # openat2(2): a bigger structure than a page is E2BIG
_HERE = calls.AT_FDCWD & 0xFFFFFFFF
_DOTS = (b"", b".", b"..")
_HELD = model.Rule(model.PACK, model.ALLOW, "read", "/**", source="built-in: held already")
_PATIENT = (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)
_TTYS = ("/dev/tty",)
_FOR_ALL = (
    "stat",
    "statm",
    "status",
    "cmdline",
    "comm",
)  # of any process, proc(5): no ptrace access is checked


class Opens:
    """The handlers of the open family."""

    def __init__(
        self,
        authority: Authority,
        resolver: Resolver,
        targets: Targets,
        journal: Journal,
        injected: Injected | None = None,
    ) -> None:
        """``injected`` says which files are read in the place of others."""
        self._authority = authority
        self._injected = injected
        # Names that no directory vouches for: they lead elsewhere, or may be exchanged.
        self._not_known = frozenset(_DOTS) | (injected.names if injected is not None else frozenset())
        self._resolver = resolver
        self._targets = targets
        self._journal = journal
        # Paths as targets write them (absolute) that lead to a static place. Landlock decides all the same, so an entry
        # that a link has since made untrue costs the target an error, never more; names that the session changes clear it.
        self._static_reads: set[bytes] = set()
        # Directories written as they really are, all below which is static: only a link in them leads elsewhere.
        self._static_dirs: set[bytes] = set()
        # `fast_openat` goes without the lock, under which other threads read paths.
        self._read_fast = path_reader()
        self._read: tuple[int, bytes, bytes] = (0, b"", b"")  # notification, its path, the same absolute
        self.slow_mounts: tuple[str, ...] = ()

    def forget(self) -> None:
        """Forget which paths are static: a link, a directory or the policy changed."""
        self._static_reads.clear()
        self._static_dirs.clear()

    def fast_openat(self, id: int, tid: int, fields: tuple[int, ...]) -> bool:
        """Say whether this openat only reads, by a string that leads to a static place."""
        if fields[8] & _CHANGES:
            return False
        dirfd = fields[6] & 0xFFFFFFFF
        try:
            path = self._read_fast(tid, fields[7])
            if path[:1] == b"/":
                known = path
            elif dirfd == _HERE and path:
                known = readlink(b"/proc/%d/cwd" % tid) + b"/" + path
            elif path:
                known = readlink(b"/proc/%d/fd/%d" % (tid, dirfd)) + b"/" + path
            else:
                return False
        except OSError:
            return False
        if known not in self._static_reads:
            head, _, name = known.rpartition(b"/")
            if head not in self._static_dirs or name in self._not_known or is_link(known):
                self._read = (id, path, known)
                return False
        self._journal.static_reads += 1
        return True

    def openat(self, note: Note) -> Act | Effect:
        """openat(dirfd, path, flags, mode)"""
        a = note.args
        return self._open(note, int_of(a[0]), a[1], a[2] & 0xFFFFFFFF, a[3] & 0o7777)

    def open(self, note: Note) -> Act | Effect:
        """open(path, flags, mode)"""
        a = note.args
        return self._open(note, calls.AT_FDCWD, a[0], a[1] & 0xFFFFFFFF, a[2] & 0o7777)

    def creat(self, note: Note) -> Act | Effect:
        """creat(path, mode)"""
        a = note.args
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        return self._open(note, calls.AT_FDCWD, a[0], flags, a[1] & 0o7777)

    def openat2(self, note: Note) -> Act | Effect:
        """openat2(dirfd, path, how, size): the structure is read once and never again."""
        a = note.args
        size = a[3]
        if size < 24:
            raise OSError(errno.EINVAL, "open_how too small")
        if size > _HOW_MAX:
            raise OSError(errno.E2BIG, "open_how too big")
        raw = calls.read_memory(note.tid, a[2], size)
        if any(raw[24:]):
            raise OSError(errno.E2BIG, "open_how of a later kernel")
        flags, mode, resolve = struct.unpack_from("QQQ", raw)
        if flags >> 32 or mode & ~0o7777 or resolve & ~0x3F:
            raise OSError(errno.EINVAL, "unknown flags")
        if mode and not flags & (os.O_CREAT | calls.O_TMPFILE):
            raise OSError(errno.EINVAL, "mode without O_CREAT")
        resolve &= ~calls.RESOLVE_CACHED
        return self._open(note, int_of(a[0]), a[1], flags, mode, resolve)

    def _open(
        self, note: Note, dirfd: int, address: int, flags: int, mode: int, resolve: int = 0
    ) -> Act | Effect:
        tid = note.tid
        id, path, known = self._read
        if id != note.id:
            path, known = read_path(tid, address), b""
        reading = not flags & _CHANGES
        if flags & os.O_PATH:
            return CONTINUE  # gives no access: each use of the descriptor is mediated again, and Landlock holds
        if flags & calls.O_TMPFILE:
            return self._tmpfile(note, dirfd, path, flags, mode, resolve)
        last_not_followed = bool(flags & os.O_NOFOLLOW) or flags & _CREATING == _CREATING
        try:
            pin = self._resolver.pin(tid, dirfd, path, last_not_followed, resolve)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            return self._create(note, dirfd, path, flags, mode, resolve)
        try:
            if reading and (instead := self._read_instead(pin, flags)) is not None:
                pin.close()
                return instead
            act = self._existing(note, pin, dirfd, path, flags, known if reading else b"")
        except BaseException:
            pin.close()
            raise
        if not isinstance(act, Act) or pin not in act.held:
            pin.close()
        return act

    def _read_instead(self, pin: Pin, flags: int) -> Effect | None:
        """Return the descriptor of what is read in the place of the pinned file, None when that is the file itself."""
        instead = self._injected.instead_of(pin.path) if self._injected is not None else ""
        if not instead or self._authority.engine.decide("read", pin.path).verdict != model.ALLOW:
            return None
        try:
            fd = os.open(instead, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None  # the session removed it: it gets what there is
        self._journal.static_reads += 1
        return Descriptor(fd, bool(flags & os.O_CLOEXEC))

    def _existing(
        self, note: Note, pin: Pin, dirfd: int, given: bytes, flags: int, known: bytes
    ) -> Act | Effect:
        authority, real = self._authority, pin.path
        # Landlock tells a directory from a file by itself; both rights stand behind one root as a rule.
        if (
            known
            and authority.static(READ, real)
            and (authority.static(LIST, real) or not stat.S_ISDIR(pin.mode))
        ):
            self._remember(known, real)
            self._journal.static_reads += 1
            return CONTINUE
        if flags & _CREATING == _CREATING:
            raise OSError(errno.EEXIST, "exists")
        kind = stat.S_IFMT(pin.mode)
        if kind == stat.S_IFLNK:
            if flags & os.O_CREAT and not flags & os.O_NOFOLLOW:
                raise Again  # a link took the name meanwhile
            raise OSError(errno.ELOOP, "a symbolic link")
        if flags & os.O_DIRECTORY and kind != stat.S_IFDIR:
            raise OSError(errno.ENOTDIR, "not a directory")
        if kind == stat.S_IFDIR and flags & (os.O_CREAT | os.O_ACCMODE):
            raise OSError(errno.EISDIR, "is a directory")
        ops = _ops(flags, kind)
        if not real.startswith("/"):
            # A pipe, socket or memfd that the target has open already, met through its own /proc: in no directory,
            # so no policy speaks of it and Landlock lets it pass.
            return CONTINUE if authority.backed else self._anonymous(pin, kind, flags)
        if self._resolver.on_proc(pin) or real in _TTYS:
            if authority.reads_static or (ops[-1] == "write" and authority.backed):
                return self._left_to_kernel(note, ops, real)
            if ops[-1] == "write" and real not in _TTYS:
                raise OSError(errno.EACCES, "not to be opened on behalf")
            pin = self._own_view(note.tid, pin, dirfd, given)
            real = pin.path
        slow = kind in _PATIENT or real.startswith(self.slow_mounts)
        if kind != stat.S_IFDIR and "write" in ops and authority.static(WRITE, real) and slow:
            return self._passed(ops, real)
        if kind == stat.S_IFSOCK:
            raise OSError(errno.ENXIO, "a socket")
        wanted = flags & ~_NOT_AGAIN | _EXTRA
        cloexec = bool(flags & os.O_CLOEXEC)

        def reopen() -> Effect:
            return Descriptor(os.open(f"/proc/self/fd/{pin.fd}", wanted), cloexec)

        return Act(
            ops[-1],
            tuple((op, real) for op in ops),
            reopen,
            (pin,),
            given=_absolute(given),
            slow=slow,
            pinned=-1 if "write" in ops else None,
        )

    def _anonymous(self, pin: Pin, kind: int, flags: int) -> Act:
        """Open anew what the target has open already and no policy speaks of, where the kernel is left nothing."""
        if kind == stat.S_IFSOCK:
            raise OSError(errno.ENXIO, "a socket")

        def reopen() -> Effect:
            fd = os.open(f"/proc/self/fd/{pin.fd}", flags & ~_NOT_AGAIN | _EXTRA)
            return Descriptor(fd, bool(flags & os.O_CLOEXEC))

        return Act("read", (), reopen, (pin,), path=pin.path, rule=_HELD, slow=True, silent=True)

    def _remember(self, known: bytes, real: str) -> None:
        """Remember that the absolute path ``known`` leads to the static ``real``."""
        if len(self._static_reads) + len(self._static_dirs) >= _MAX_KNOWN:
            self.forget()
        if os.fsencode(real) == known:
            head = real.rpartition("/")[0]
            if self._authority.static(READ, head) and self._authority.static(LIST, head):
                self._static_dirs.add(os.fsencode(head))
                return
        self._static_reads.add(known)

    def _own_view(self, tid: int, pin: Pin, dirfd: int, given: bytes) -> Pin:
        """Return the procfs object or terminal that ``given`` means to the *target*, where nothing may be left to the
        kernel: the path is walked with the target's own process in the place of ``self``. Of processes outside the
        session only what the kernel shows to everybody is given.

        Raises OSError.
        """
        if pin.path in _TTYS:
            own = Pin(os.open(target.terminal_of(tid), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
            pin.close()
            return own
        own = self._resolver.walk(tid, dirfd, given)
        parts = own.path.split("/")
        if (
            len(parts) > 3
            and parts[2].isdigit()
            and parts[-1] not in _FOR_ALL
            and not self._targets.inside(int(parts[2]))
        ):
            own.close()
            raise OSError(errno.EACCES, "a process outside the session")
        pin.close()
        return own

    def _passed(self, ops: tuple[str, ...], real: str) -> Act:
        return Act(ops[-1], tuple((op, real) for op in ops), lambda: CONTINUE)

    def _left_to_kernel(self, note: Note, ops: tuple[str, ...], real: str) -> Act | Effect:
        """Let the kernel open what must not be opened on behalf, where policy allows it outright."""
        if ops == ("read",) or ops == ("list",):
            for op in ops:
                if self._authority.decide(op, real).verdict:
                    raise OSError(errno.EACCES, "not to be opened on behalf")
            return CONTINUE
        return self._passed(ops, real)

    def _create(
        self, note: Note, dirfd: int, path: bytes, flags: int, mode: int, resolve: int
    ) -> Act | Effect:
        """Open with O_CREAT what did not exist a moment ago."""
        if path.endswith(b"/"):
            raise OSError(errno.EISDIR, "a directory's name")
        place = self._resolver_place(note.tid, dirfd, path, flags, resolve)
        real = place.path
        authority = self._authority
        ops = tuple(dict.fromkeys(("create", *_ops(flags & ~os.O_TRUNC, stat.S_IFREG))))
        if authority.static(WRITE, real) and real.startswith(self.slow_mounts):
            place.close()
            return self._passed(ops, real)
        umask = self._targets.process(note.tid).umask
        wanted = flags | os.O_NOFOLLOW | os.O_EXCL | os.O_CREAT | _EXTRA
        cloexec = bool(flags & os.O_CLOEXEC)
        shared = authority.in_shared(real) and not authority.static(WRITE, real)

        def create() -> Effect:
            old = os.umask(umask)
            try:
                fd = os.open(place.name, wanted, mode, dir_fd=place.parent.fd)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
                raise Again from None  # somebody was faster: it exists, and is decided on as such
            finally:
                os.umask(old)
            if shared:
                authority.own(place.parent.fd, place.name)
            return Descriptor(fd, cloexec)

        return Act(
            "create", tuple((op, real) for op in ops), create, (place,), given=_absolute(path), pinned=-1
        )

    def _resolver_place(self, tid: int, dirfd: int, path: bytes, flags: int, resolve: int) -> Place:
        """Return the place to create in: that of ``path``, or of the dangling link that it is."""
        for _ in range(40):
            if resolve:
                # The directory under the target's own constraints; the name itself is then in it, or refused.
                head = path.rpartition(b"/")[0] or (b"/" if path[:1] == b"/" else b".")
                self._resolver.pin(tid, dirfd, head, False, resolve).close()
            place = self._resolver.place(tid, dirfd, path)
            st = place.stat()
            if st is None:
                return place
            if not stat.S_ISLNK(st.st_mode) or flags & (os.O_EXCL | os.O_NOFOLLOW):
                place.close()
                raise Again
            try:
                link = os.readlink(place.name, dir_fd=place.parent.fd)
                if resolve:
                    raise OSError(errno.ELOOP, "a dangling link under openat2's constraints")
                path = link if link[:1] == b"/" else os.fsencode(join(place.parent.path, "")) + link
            finally:
                place.close()
        raise OSError(errno.ELOOP, "too many links")

    def _tmpfile(
        self, note: Note, dirfd: int, path: bytes, flags: int, mode: int, resolve: int
    ) -> Act | Effect:
        """Open a file without a name in a directory; giving it one later is a link, and mediated as such."""
        pin = self._resolver.pin(note.tid, dirfd, path, False, resolve)
        if not stat.S_ISDIR(pin.mode):
            pin.close()
            raise OSError(errno.ENOTDIR, "not a directory")
        real = join(pin.path, "#tmpfile")
        if self._authority.static(WRITE, real) and real.startswith(self.slow_mounts):
            pin.close()
            return self._passed(("create", "write"), real)
        umask = self._targets.process(note.tid).umask
        wanted = flags & ~_NOT_AGAIN | _EXTRA
        if flags & os.O_EXCL:
            wanted |= os.O_EXCL

        def create() -> Effect:
            old = os.umask(umask)
            try:
                fd = os.open(f"/proc/self/fd/{pin.fd}", wanted, mode)
            finally:
                os.umask(old)
            return Descriptor(fd, bool(flags & os.O_CLOEXEC))

        return Act("create", (("create", real), ("write", real)), create, (pin,), pinned=-1)


def _ops(flags: int, kind: int) -> tuple[str, ...]:
    """Return the operations that opening with ``flags`` an object of ``kind`` is; the heaviest last."""
    if kind == stat.S_IFDIR:
        return ("list",)
    access = flags & os.O_ACCMODE
    if access == os.O_RDONLY:
        return ("read", "write") if flags & os.O_TRUNC else ("read",)
    return ("write",) if access == os.O_WRONLY else ("read", "write")


def _absolute(path: bytes) -> str | None:
    """Return the path as given when it says by itself where it leads."""
    if path[:1] != b"/" or b"//" in path or {b".", b".."} & set(path.split(b"/")):
        return None
    return os.fsdecode(path)


def int_of(value: int) -> int:
    """Return a system call's ``int`` argument, which the kernel takes from the register's low half."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value
