"""Open a file for a program: pinned, decided on by the pinned object's own path, reopened through the pin, handed over.

The descriptor gives what was asked and no more. Only regular files are given: what else there is either blocks whoever opens it
(FIFOs, devices), means something else to every process (procfs, ``/proc/self``, ``/dev/tty``), or is a way further (directories).
A symbolic link is followed, a magic link of procfs never. The file system may be slow or stuck, so it is touched in threads of their own.

For a program inside a session this is no way round its supervisor: the same policy decides, remit's own places are closed by it, and
what the policy leaves to the supervisor's knowledge (the shared directories, where a session has what it made) is left to it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import threading
from collections import Counter
from typing import TYPE_CHECKING

from remit_daemon.broker.core import Refused
from remit_daemon.kernel import calls
from remit_daemon.kernel.objects import object_of
from remit_daemon.runtime.lines import Problem
from remit_daemon.supervisor.resolve import Pin, Place, real_path
from remit_daemon.wire.rpc import BUSY, DENIED, INVALID_PARAMS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from remit_daemon.broker.records import Session
    from remit_daemon.runtime.asks import Caller, Told
    from remit_daemon.runtime.daemon import Daemon

    T = TypeVar("T")

MAX_BESIDE = (
    16  # threads that touch file systems at once; a stuck one keeps its own until the file system answers
)
MAX_BESIDE_EACH = 4  # of one session
WITHIN = 20.0  # seconds for a file system to answer
SHARED = ("/tmp/", "/var/tmp/", "/dev/shm/")  # noqa: S108 - sticky, everybody's: the supervisor knows what is a session's own there
# What each mode opens with, and which operations that is; the heaviest last.
MODES: dict[str, tuple[int, tuple[str, ...]]] = {
    "read": (os.O_RDONLY, ("read",)),
    "write": (os.O_WRONLY, ("write",)),
    "readwrite": (os.O_RDWR, ("read", "write")),
    "create": (os.O_WRONLY | os.O_CREAT | os.O_EXCL, ("write", "create")),
}
_ALWAYS = (
    os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
)  # O_NONBLOCK: a lease (fcntl(2)) of another program's is no wait of ours
MAX_ABSENT = 64  # directories of a path that are not there
_LAST_COMPONENTS = (b"", b".", b"..")
_DOTS = ("", ".", "..")

Held = Pin | Place


class Files:
    """Opens files for callers. One for the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._busy: Counter[str] = Counter()
        self._queue: dict[
            asyncio.Future[None], str
        ] = {}  # who waits for a thread, each on a connection of its own

    async def real(self, session: str, path: str) -> str:
        """Return the real path that ``path`` leads to, of what is not there that of its nearest directory and the rest.

        Raises Problem, Refused.
        """
        rest: list[str] = []
        while True:
            try:
                held = await self._hold(session, path)
            except Problem as e:
                path, _, name = path.rstrip("/").rpartition("/")
                absent = isinstance(e.data, dict) and e.data.get("errno") in ("ENOENT", "ENOTDIR")
                if not absent or name in _DOTS or len(rest) >= MAX_ABSENT:
                    raise
                rest.append(name)
                path = path or "/"
                continue
            found = held.path
            held.close()
            return "/".join([found.rstrip("/"), *reversed(rest)]) if rest else found

    async def open(
        self, caller: Caller, path: str, mode: str, purpose: str, wait: float | None
    ) -> tuple[str, int]:
        """Return (real path, descriptor) once policy or the person allows it. Raises Problem, and what ``settle`` raises."""
        if mode not in MODES:
            raise Problem(INVALID_PARAMS, f"mode is one of {', '.join(MODES)}")
        flags, ops = MODES[mode]
        held = await self._hold(caller.session, path, create=mode == "create")
        try:
            real = held.path
            self._fitting(caller, held, ops)
            told = await self._daemon.asks.settle(
                caller,
                ops,
                real,
                purpose=purpose,
                wait=wait,
                given=_lexical(path),
                note="for it, by remitd",
            )
            if told.verdict != "allow":
                raise denied(ops, real, told)
            try:
                fd, object = await self._beside(
                    caller.session,
                    lambda: _given(held, real, flags, caller.pid),
                    lambda made: os.close(made[0]),
                )
            except OSError as e:
                self._daemon.asks.done(told.row, errno.errorcode.get(e.errno or 0, "EIO"))
                raise _failed(real, e) from None
            except BaseException:
                self._daemon.asks.done(told.row, "EAGAIN")
                raise
            self._daemon.asks.done(told.row, object=object)
            return real, fd
        finally:
            held.close()

    async def _hold(self, session: str, path: str, create: bool | None = None) -> Held:
        """Pin what ``path`` is, or (``create``; None: should there be nothing) the place where it would be."""
        if path[:1] != "/":
            raise Problem(INVALID_PARAMS, "path must be absolute")
        try:
            raw = os.fsencode(path)
        except UnicodeEncodeError:
            raise Problem(INVALID_PARAMS, "path is no file's name") from None
        if b"\0" in raw:
            raise Problem(INVALID_PARAMS, "path is no file's name")
        try:
            return await self._beside(session, lambda: _held(raw, create), lambda held: held.close())
        except OSError as e:
            raise _failed(path, e) from None

    def _fitting(self, caller: Caller, held: Held, ops: tuple[str, ...]) -> None:
        """Return when the object is one that is given away at all. Raises Problem."""
        session = self._daemon.broker.state.sessions[caller.session]
        why = _unfit(held) or _left_to_supervisor(session, held.path)
        if why:
            self._daemon.asks.refuse(caller, ops, held.path, why)
            raise Problem(
                DENIED,
                f"{held.path}: {why}",
                {"op": ops[-1], "resource": held.path, "rule": "built-in: open"},
            )

    async def _turn(self, session: str) -> None:
        """Wait for a thread, which is then counted. Raises Refused when none gets free in time."""
        if self._room(session):
            self._busy[session] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[turn] = session
        try:
            async with asyncio.timeout(WITHIN):
                await turn
        except BaseException as e:
            if turn.done() and not turn.cancelled():
                self._leave(session)  # it came as we gave up
            if isinstance(e, TimeoutError):
                raise Refused(BUSY, "too many files are being opened; try again in a moment") from None
            raise
        finally:
            self._queue.pop(turn, None)

    def _room(self, session: str) -> bool:
        return self._busy.total() < MAX_BESIDE and self._busy[session] < MAX_BESIDE_EACH

    def _leave(self, session: str) -> None:
        """Count a thread no more, and give the turn to whoever has waited longest and may have it."""
        self._busy[session] -= 1
        if not self._busy[session]:
            del self._busy[session]
        for turn, whose in self._queue.items():
            if not turn.done() and self._room(whose):
                self._busy[whose] += 1
                turn.set_result(None)
                return

    async def _beside(self, session: str, work: Callable[[], T], drop: Callable[[T], None]) -> T:
        """Return what ``work`` returns, done in a thread; what comes after WITHIN is given to ``drop``. Raises OSError, Refused."""
        await self._turn(session)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def take(result: T | None, error: OSError | None) -> None:
            self._leave(session)
            if done.done():
                if error is None:
                    drop(result)  # type: ignore[arg-type]
            elif error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except OSError as e:
                error = e
            except BaseException as e:
                error = OSError(errno.EIO, f"internal fault: {type(e).__name__}: {e}")
            try:
                loop.call_soon_threadsafe(take, result, error)
            except RuntimeError:
                pass  # the daemon has stopped; the process ends with what it holds

        threading.Thread(target=run, daemon=True).start()
        try:
            async with asyncio.timeout(WITHIN):
                return await done
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def _held(path: bytes, create: bool | None) -> Held:
    if not create:
        try:
            return _pinned(path)
        except FileNotFoundError:
            if create is False:
                raise
    head, _, name = path.rpartition(b"/")
    if name in _LAST_COMPONENTS:
        raise OSError(errno.ENOENT if create is None else errno.EISDIR, "no name for a file")
    parent = _pinned(head or b"/")
    if not stat.S_ISDIR(parent.mode):
        parent.close()
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return Place(parent, name, False)


def _pinned(path: bytes) -> Pin:
    # Always these very flags: the structure that `openat2` fills is shared by our threads.
    return Pin(
        calls.openat2(calls.AT_FDCWD, path, os.O_PATH | os.O_CLOEXEC, 0, calls.RESOLVE_NO_MAGICLINKS)
    )


def _given(held: Held, real: str, flags: int, pid: int) -> tuple[int, str]:
    """Return the descriptor to hand over, and the name of the object that may be written through it."""
    fd = _reopened(held, real, flags, pid)
    return fd, object_of(fd) if flags & os.O_ACCMODE else ""


def _reopened(held: Held, real: str, flags: int, pid: int) -> int:
    if isinstance(held, Place):
        if held.parent.path != real_path(held.parent.fd):
            raise OSError(errno.ESTALE, "moved while it was decided on")
        mode = 0o666 & ~_umask(pid)
        fd = os.open(held.name, flags | os.O_NOFOLLOW | _ALWAYS, mode, dir_fd=held.parent.fd)
    else:
        if real_path(held.fd) != real:
            raise OSError(errno.ESTALE, "moved while it was decided on")
        fd = os.open(f"/proc/self/fd/{held.fd}", flags | _ALWAYS)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EACCES, "no regular file")
        fcntl.fcntl(fd, fcntl.F_SETFL, flags & os.O_ACCMODE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _unfit(held: Held) -> str:
    """Return why the pinned object is not given away, "" when it may be."""
    st = held.parent.st if isinstance(held, Place) else held.st
    if st.st_dev == os.stat("/proc").st_dev:
        return "procfs means something else to every process"
    if not held.path.startswith("/"):
        return "it is in no directory"
    if isinstance(held, Place) or stat.S_ISREG(st.st_mode):
        return ""
    return (
        "a directory is not handed over; open what is in it"
        if stat.S_ISDIR(st.st_mode)
        else "no regular file"
    )


def _left_to_supervisor(session: Session, real: str) -> str:
    if not session.confined or not real.startswith(SHARED):
        return ""
    own = session.hello.get("tmpdir") or ""
    if own and real.startswith(own + "/"):
        return ""
    return "of shared directories only the session's supervisor knows what is its own; open it yourself"


def _lexical(path: str) -> str:
    """Return ``path`` when it says by itself where it leads, else ""."""
    parts = path.split("/")[1:]
    return "" if {"", ".", ".."} & set(parts) else path


def _umask(pid: int) -> int:
    """Return the umask of process ``pid`` (proc(5), status); nobody else's access where it is not told."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            for line in f:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except (OSError, ValueError, IndexError):
        pass
    return 0o077


def _failed(path: str, error: OSError) -> Problem:
    name = errno.errorcode.get(error.errno or 0, "EIO")
    text = error.strerror or os.strerror(error.errno or errno.EIO)
    return Problem(DENIED, f"{path}: {text}", {"resource": path, "errno": name})


def denied(ops: tuple[str, ...], resource: str, told: Told) -> Problem:
    """Return the error for an act that policy or the person does not allow (or not yet)."""
    text = told.message or ("the policy denies it" if told.verdict == "deny" else "not answered yet")
    data = {
        "op": ops[-1], "resource": resource, "verdict": told.verdict, "rule": told.rule, "prompt": told.prompt,
    }  # fmt: skip
    return Problem(DENIED, text, data)
