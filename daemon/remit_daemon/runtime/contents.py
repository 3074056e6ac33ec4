"""What sessions left in files: looked at once their writes have been quiet, beside the event loop.

Only the very object that a session opened for writing is read, whatever has its path by now (``kernel.objects``), and only
a regular file; a pipe or a link in its place is left alone. What is not looked at, for whatever reason, gets a row that says so, and is
then known by its object without its content.

What somebody else writes to the file between the session's last opening of it and the look is taken for the session's: no program
that runs as you can tell the two apart. After the session's end the kernel can: what changed later is not the session's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from remit_daemon.kernel import calls
from remit_daemon.kernel.objects import object_of
from remit_daemon.ledger.files import Commit, Left, Unsettled
from remit_daemon.ledger.store import LedgerError
from remit_daemon.runtime.gitobjects import MAX_COMMIT, commit_of, remark

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

log = logging.getLogger("remitd.contents")

QUIET = 2.0  # seconds without a write or an opening for writing until a live session's file is looked at
LOOK_EVERY = 0.5  # seconds between looks while something waits,
AGAIN_AFTER = 0.05  # and while much does
MAX_CONTENT = 256 << 20  # bytes of a file that are hashed; a bigger one is known by its object
MAX_BATCH = 256  # files, and
MAX_BATCH_ACTIVE = 32  # while a person is active: each batch is two turns of the agents' lane
MAX_DUE = (
    4  # files that are looked up in the ledger in one turn: some 3 ms for each of git's objects at worst
)
MAX_BYTES = (
    64 << 20
)  # bytes in one look: its rows are one transaction, and the ledger's thread is free in between
MAX_RATE = (
    200 << 20
)  # bytes hashed a second, on average: an agent that rewrites big files must not have a core for it
NICENESS = 10  # of the thread that hashes
_AFTER_END = 10**9  # nanoseconds by which a session's last row may precede its last write
_NO_LINKS = calls.RESOLVE_NO_SYMLINKS | calls.RESOLVE_NO_MAGICLINKS
_SLICE = 1 << 20


class Ask(NamedTuple):
    """A file to look at.

    ``started`` is when its session began (seconds), ``ended_ns`` the time of its last act, 0 while it lives; ``program`` the
    arguments of the program that wrote it, where that matters.
    """

    of: Unsettled
    started: float
    ended_ns: int
    program: tuple[str, ...] = ()


class Seen(NamedTuple):
    """What looking at files came to."""

    found: list[Left | Commit]
    done: list[Unsettled]
    later: list[Unsettled]
    bytes: int


_NOTHING = Seen([], [], [], 0)


def pin(path: str) -> int:
    """Return an O_PATH descriptor of the file ``path``, no link on the way followed. Raises OSError."""
    return calls.openat2(
        calls.AT_FDCWD, os.fsencode(path), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _NO_LINKS
    )


def digest(fd: int) -> tuple[str, os.stat_result]:
    """Return the SHA-256 of the regular file behind the O_PATH descriptor ``fd``, and its status.

    Raises OSError when it cannot be read, ValueError (saying why) when it is too big or changes meanwhile.
    """
    readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before = os.fstat(readable)
        if before.st_size > MAX_CONTENT:
            raise ValueError("too big to hash")
        sum, left = hashlib.sha256(), before.st_size
        while left > 0 and (data := os.read(readable, min(left, _SLICE))):
            sum.update(data)
            left -= len(data)
        after = os.fstat(readable)
    finally:
        os.close(readable)
    same = ("st_size", "st_mtime_ns", "st_ctime_ns")
    if left or any(getattr(before, name) != getattr(after, name) for name in same):
        raise ValueError("it changes")
    return sum.hexdigest(), after


def look_at(asked: list[Ask], now_ns: int) -> Seen:
    """Look at the files of ``asked``, as many as a look may take. ``now_ns`` is since the epoch. Raises nothing."""
    seen = Seen([], [], [], 0)
    total = 0
    for ask in asked:
        if total >= MAX_BYTES:
            break
        try:
            git = ask.of.git_object
            found = _commit(ask, *git) if git else _left(ask, now_ns)
        except OSError as e:
            found = Left(ask.of, why=os.strerror(e.errno or 0).lower())
        except _Later:
            seen.later.append(ask.of)
            continue
        if isinstance(found, Left):
            total += found.size
        if found is not None:
            seen.found.append(found)
        seen.done.append(ask.of)
    return seen._replace(bytes=total)


class _Later(Exception):
    """The file is still being written."""


def _left(ask: Ask, now_ns: int) -> Left:
    of = ask.of
    fd = pin(of.path)
    try:
        if object_of(fd) != of.object:
            return Left(of, why="another file has its name")
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            return Left(of, why="no regular file")
        if not ask.ended_ns and abs(now_ns - st.st_mtime_ns) < QUIET * 1e9:
            raise _Later
        if ask.ended_ns and st.st_ctime_ns > ask.ended_ns + _AFTER_END:
            return Left(of, why="changed after the session")
        try:
            sum, st = digest(fd)
        except ValueError as e:
            if str(e) == "it changes" and not ask.ended_ns:
                raise _Later from None
            return Left(of, why=str(e))
    finally:
        os.close(fd)
    return Left(of, sum, st.st_size, st.st_ctime_ns)


def _commit(ask: Ask, git_dir: str, id: str) -> Commit | None:
    """Return the commit that a loose object is, None when it is another object; a lost one may have been a commit."""
    repository = git_dir.removesuffix("/.git")
    try:
        fd = pin(ask.of.path)
    except FileNotFoundError:
        return Commit(ask.of, repository, id, "this object was gone before it was read: a commit, or not")
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return Commit(ask.of, repository, id, "not to be read as an object: a commit, or not")
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(fd)
    try:
        commit = commit_of(os.read(readable, MAX_COMMIT))
    except ValueError:
        return Commit(ask.of, repository, id, "not to be read as an object: a commit, or not")
    finally:
        os.close(readable)
    if commit is None:
        return None
    return Commit(ask.of, repository, id, remark(commit, ask.of.session, ask.started, ask.program))


def _be_nice() -> None:
    """Give way to others. Who is nicer already may not become less so."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))


class Contents:
    """Looks at what waits, for as long as remitd runs."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "contents", _be_nice)

    def wake(self) -> None:
        """Say that something may wait."""
        self._wake.set()

    async def run(self) -> None:
        """Look at files for ever, as they become quiet."""
        while True:
            self._wake.clear()
            try:
                seen = await self.step()
            except LedgerError as e:
                log.error("%s", e)
                seen = _NOTHING
            except Exception:  # a fault of ours must not end the looking for good
                log.exception("internal error")
                seen = _NOTHING
            if seen is None:
                await self._wake.wait()
                seen = _NOTHING
            pause = AGAIN_AFTER if len(seen.done) > MAX_BATCH_ACTIVE // 2 else LOOK_EVERY
            await asyncio.sleep(max(pause, seen.bytes / MAX_RATE))

    async def step(self) -> Seen | None:
        """Look once at what is quiet; return what came of it, None when nothing waits. Raises LedgerError."""
        daemon = self._daemon
        now_ns = time.time_ns()
        async with daemon.lanes.agents():
            waiting = daemon.ledger.waiting(MAX_BATCH if daemon.lanes.quiet else MAX_BATCH_ACTIVE)
        asked: list[Ask] = []
        for at in range(0, len(waiting), MAX_DUE):  # a flood of git's objects must not make one long turn
            async with daemon.lanes.agents():
                found = [self._due(of, now_ns) for of in waiting[at : at + MAX_DUE]]
            asked += [ask for ask in found if ask is not None]
        if not waiting:
            return None
        if not asked:
            return _NOTHING
        seen = await asyncio.get_running_loop().run_in_executor(self._thread, look_at, asked, now_ns)
        async with daemon.lanes.agents():
            daemon.ledger.settle(seen.found, seen.done, seen.later)
            if seen.found:
                daemon.publish()
        return seen

    def _due(self, of: Unsettled, now_ns: int) -> Ask | None:
        session = self._daemon.broker.state.sessions.get(of.session)
        started = session.started if session is not None else 0.0
        ledger = self._daemon.ledger
        program = tuple(ledger.program_of(of.seq)) if of.git_object else ()
        if session is None or not session.live:
            return Ask(of, started, max(ledger.last_ns(of.session), 1), program)
        if of.git_object is None and abs(now_ns - of.time_ns) < QUIET * 1e9:
            return None
        return Ask(of, started, 0, program)

    def close(self) -> None:
        """Let the thread go; what waits is looked at by the next remitd."""
        self._thread.shutdown(wait=False, cancel_futures=True)
