"""What a process runs: the SHA-256 of its program, and of the script where the program is an interpreter.

The program is read through ``/proc/PID/exe``, which is the very file that was executed, whatever its name leads to now. A script is found from
the command line and the working directory, so it is the process's own claim: an interpreter may have been given another, or have loaded
anything since. Identify, use, verify again: the process is held by its pidfd, and after the hashing it must still run, run that same
file, with that same command line; an exec keeps the pidfd, so a hash is good for the moment alone and is asked again at each issue.

A digest is kept under the file's identity, size and times; hashing is bounded by size and, for each on whose behalf it is done, by number:
a program that executes itself from thousands of fresh files shall not keep us hashing. What cannot be told has a name (``Outcome``), and
nothing is ever taken for attested that is not.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from remit_daemon.peers.digest import content_key, sha256_of
from remit_daemon.peers.process import alive
from remit_daemon.peers.scripts import Kind, interpreter, script_of

LARGEST = 1 << 30  # bytes, some seconds of hashing; the largest agents' programs are a quarter of that
MAX_KNOWN = 4096  # digests kept; a machine runs some hundred programs
MAX_FRESH = 20  # files hashed in PERIOD on behalf of one process or session: a start takes one or two
PERIOD = 60.0  # seconds
MAX_BEHALF = 1024  # of those that are counted; beyond, the longest unheard-of is forgotten
MAX_CMDLINE = 1 << 16  # bytes; the kernel allows megabytes, no honest start needs them
SETTLED = 2.0  # seconds since a file's last change until its digest is kept: file systems' clocks may be that coarse (FAT)
_NAMESPACES = ("mnt", "user", "pid")


class Outcome(Enum):
    """How the program of a process was found."""

    FILE = "file"
    DELETED = "deleted"  # hashed; no name leads to it any more
    MEMFD = "memfd"  # hashed; it never had a name
    NAMESPACE = "other namespace"  # hashed; its paths mean other files than ours
    UNREADABLE = "unreadable"
    UNDUMPABLE = "not dumpable"  # the kernel closes it to others of its user, as with a program that may be executed but not read
    CHANGED = "changed while it was hashed"
    NO_FILE = "not a regular file"
    TOO_LARGE = "too large"
    TOO_MANY = "too many fresh programs"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Attestation:
    """What a process runs. ``digest`` is "" where the outcome has none; so is ``script_digest``. ``path`` and ``script`` are for people.

    Not for the process itself: it chose the script, so the digest would tell it about a file that it may not read.
    """

    outcome: Outcome
    path: str = ""
    digest: str = ""
    kind: Kind = Kind.NATIVE
    script: str = ""
    script_digest: str = ""

    @property
    def attested(self) -> tuple[str, str]:
        """What identifies the program: (digest, script's digest, "" for a native one); ("", "") where anything is missing."""
        if not self.digest or (self.kind is not Kind.NATIVE and not self.script_digest):
            return "", ""
        return self.digest, self.script_digest

    def words(self) -> str:
        """Say it to a person."""
        if not self.digest:
            return f"its program is not attested: {self.outcome.value}"
        where = "" if self.outcome is Outcome.FILE else f" ({self.outcome.value})"
        if self.kind is Kind.NATIVE:
            return f"{self.path}{where}"
        what = f"{self.kind.value} {self.script}".strip()
        return f"{self.path}{where} with {what}" + ("" if self.script_digest else ", which is not attested")


def assurance(found: Attestation, *, launched: bool, known: bool) -> str:
    """Return how well it is told who a process is: L3 started by remit; L2 a native program, L1 an interpreter with a script, whose digest is
    ``known``, that is registered; L0 anything else."""
    if launched:
        return "L3"
    if not known or not found.attested[0]:
        return "L0"
    return "L2" if found.kind is Kind.NATIVE else "L1"


class _Unattested(Exception):
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


class Attestor:
    """Hashes what processes run; for use in threads. ``clock`` gives monotonic seconds, ``wall`` those since the epoch."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        hash_fd: Callable[[int], str] = sha256_of,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._hash_fd = hash_fd
        self._known: OrderedDict[str, str] = OrderedDict()
        self._fresh: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def of_process(self, pid: int, pidfd: int, behalf: str) -> Attestation:
        """Return what ``pid``, held by ``pidfd``, runs. ``behalf`` names whose hashing is counted: a session or the process. Blocks."""
        try:
            return self._process(pid, pidfd, behalf)
        except _Unattested as e:
            return Attestation(e.outcome)
        except OSError:
            return Attestation(Outcome.UNREADABLE if alive(pidfd) else Outcome.GONE)

    def of_file(self, path: str, behalf: str) -> str:
        """Return the SHA-256 of the regular file at ``path``. Blocks. Raises OSError, whose text says why."""
        fd = -1
        try:
            fd = _open(path)
            return self._digest(fd, behalf)
        except _Unattested as e:
            raise OSError(0, e.outcome.value) from None
        finally:
            if fd >= 0:
                os.close(fd)

    def _process(self, pid: int, pidfd: int, behalf: str) -> Attestation:
        proc = f"/proc/{pid}"
        try:
            path = os.readlink(f"{proc}/exe")
            fd = os.open(f"{proc}/exe", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise _Unattested(Outcome.GONE) from None
        except PermissionError:
            raise _Unattested(_closed(pid, pidfd)) from None
        try:
            before = os.fstat(fd)
            cmdline = _cmdline(proc)
            digest = self._digest(fd, behalf)
            outcome = Outcome.NAMESPACE if _elsewhere(proc) else _named(path, before)
            kind, script, script_digest = Kind.NATIVE, "", ""
            name = interpreter(path)
            if name:
                kind, script = script_of(name, [os.fsdecode(w) for w in cmdline])
                if kind is Kind.FILE and outcome is not Outcome.NAMESPACE:
                    script, script_digest = self._script(proc, script, behalf)
            after = os.stat(f"{proc}/exe")
            if (after.st_dev, after.st_ino) != (before.st_dev, before.st_ino) or _cmdline(proc) != cmdline:
                raise _Unattested(Outcome.CHANGED)
        finally:
            os.close(fd)
        if not alive(pidfd):  # and so all of the above was said of the process that we hold
            raise _Unattested(Outcome.GONE)
        return Attestation(outcome, path.removesuffix(" (deleted)"), digest, kind, script, script_digest)

    def _script(self, proc: str, script: str, behalf: str) -> tuple[str, str]:
        """Return the script's real path and digest, "" when it cannot be read or is no file: the process may have said anything."""
        try:
            cwd = os.open(f"{proc}/cwd", os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return script, ""
        try:
            fd = _open(script, cwd)
        except (OSError, ValueError, _Unattested):
            return script, ""
        finally:
            os.close(cwd)
        try:
            return os.readlink(f"/proc/self/fd/{fd}"), self._digest(fd, behalf)
        except (OSError, _Unattested):
            return script, ""
        finally:
            os.close(fd)

    def _digest(self, fd: int, behalf: str) -> str:
        before = os.fstat(fd)
        key = content_key(before)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        if before.st_size > LARGEST:
            raise _Unattested(Outcome.TOO_LARGE)
        self._count(behalf)
        digest = self._hash_fd(fd)
        if content_key(os.fstat(fd)) != key:
            raise _Unattested(Outcome.CHANGED)
        if self._wall() - max(before.st_mtime, before.st_ctime) > SETTLED:
            with self._lock:
                self._known[key] = digest
                if len(self._known) > MAX_KNOWN:
                    self._known.popitem(last=False)
        return digest

    def _count(self, behalf: str) -> None:
        now = self._clock()
        with self._lock:
            times = self._fresh.setdefault(behalf, deque())
            self._fresh.move_to_end(behalf)
            if len(self._fresh) > MAX_BEHALF:
                self._fresh.popitem(last=False)
            while times and now - times[0] >= PERIOD:
                times.popleft()
            if len(times) >= MAX_FRESH:
                raise _Unattested(Outcome.TOO_MANY)
            times.append(now)


def _open(path: str, directory: int | None = None) -> int:
    """Open the regular file ``path`` for reading. Anything else is left alone: opening a device or a pipe is felt by others. Raises OSError."""
    pin = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(pin).st_mode):
            raise _Unattested(Outcome.NO_FILE)
        return os.open(f"/proc/self/fd/{pin}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(pin)


def _cmdline(proc: str) -> list[bytes]:
    with open(f"{proc}/cmdline", "rb") as f:
        return f.read(MAX_CMDLINE).split(b"\0")[:-1]


def _closed(pid: int, pidfd: int) -> Outcome:
    """Tell why a process's program may not be read: /proc/PID is root's where the process is not dumpable (proc(5))."""
    try:
        owner = os.stat(f"/proc/{pid}/exe", follow_symlinks=False).st_uid
    except OSError:
        return Outcome.UNREADABLE if alive(pidfd) else Outcome.GONE
    return Outcome.UNREADABLE if owner == os.getuid() else Outcome.UNDUMPABLE


def _elsewhere(proc: str) -> bool:
    """Tell whether a process's paths are not ours: another mount, user or process namespace, or another root."""
    theirs, ours = os.stat(f"{proc}/root"), os.stat("/")
    return (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino) or any(
        os.readlink(f"{proc}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES
    )


def _named(path: str, st: os.stat_result) -> Outcome:
    """Tell whether the name that the kernel gives still leads to the file itself."""
    if path.startswith("/memfd:"):
        return Outcome.MEMFD
    try:
        there = os.stat(path)
    except OSError:
        return Outcome.DELETED
    return Outcome.FILE if (there.st_dev, there.st_ino) == (st.st_dev, st.st_ino) else Outcome.DELETED
