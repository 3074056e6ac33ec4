"""What this kernel really enforces, as a list that `remit doctor` prints and `remit run` insists on.

`check` tries everything (`trials.py`, about 30 ms). `require` is for each start: the outcome of an earlier trial is
kept in a file the caller names, valid for this boot and this kernel only, and read in well under a millisecond.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    State = Literal["full", "partial", "none"]

_FORMAT = "remit-probe-1"
_CACHE_LIMIT = 16384  # bytes; a real one has about 2,000
_SCRATCH = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - mkdir with a random name and mode 0700, never reused


class Unsupported(Exception):
    """This kernel lacks something without which remit would protect less than it says."""


class Check:
    """One mechanism: whether it works here, what was tried and what it means, and whether remit runs without it."""

    __slots__ = ("detail", "name", "required", "since", "state", "tried")

    def __init__(
        self, name: str, state: State, detail: str, required: bool, since: str, tried: str
    ) -> None:
        self.name = name
        self.state = state
        self.detail = detail
        self.required = required
        self.since = since  # the Linux release that brought it
        self.tried = tried


# key of a trial, name, required, since, what was tried, what is then true, what is lost without it
_TABLE = (
    ("listener", "call notification", True, "5.0", "a child installs a filter that notifies",
     "calls wait for the supervisor's answer", ""),
    ("handover", "listener hand-over", True, "5.6", "its listener is taken over with pidfd_getfd",
     "the supervisor holds the listener and the agent does not", ""),
    ("memory", "reading arguments", True, "3.2", "the path of its call is read with process_vm_readv",
     "paths and addresses are read from the agent's memory", ""),
    ("answer", "answering", True, "5.0", "its call is answered with a number that it reports back",
     "the agent sees exactly the answer that was sent", ""),
    ("inject", "descriptor injection", True, "5.14", "its call is answered with a descriptor of ours",
     "the supervisor opens, and the agent gets what was decided on", ""),
    ("storm", "uninterrupted answers", True, "5.19", "300 calls are answered while signals arrive",
     "no act is done twice or lost when signals arrive", ""),
    ("hangup", "end of the last process", False, "5.9", "the child ends and the listener is polled",
     "the supervisor learns it from the listener", "the supervisor learns of it later"),
    ("wake", "synchronous wake-up", False, "6.6", "the listener is told to hand the processor over",
     "an answer costs no wait for another processor", "answers are slower"),
    ("openat2", "pinned opens", True, "5.6", "/proc/self is opened with links forbidden",
     "a path is opened without following links", ""),
    ("threads", "descriptors of threads", False, "6.9", "a pidfd of one thread is opened",
     "a thread is held exactly", "its whole process is held instead"),
    ("files", "Landlock: files", True, "5.13", "a confined child opens a file it may and lists a directory it may not",
     "what no rule allows is refused by the kernel itself", ""),
    ("moves", "Landlock: moves", True, "5.19", "the child moves a file to another directory",
     "files cannot be moved or linked out of their place", ""),
    ("truncation", "Landlock: truncation", True, "6.2", "the child empties a file it may not",
     "files cannot be emptied without the right to", ""),
    ("devices", "Landlock: devices", False, "6.10", "the child sends a command to /dev/null",
     "commands to devices can be made to need a right", "commands to devices cannot be told from reading them"),
    ("tcp", "Landlock: TCP", False, "6.7", "the child connects to a port of this machine",
     "the agent cannot connect by itself", "connections rest on the supervisor alone"),
    ("signals", "Landlock: signals", True, "6.12", "the child signals its parent",
     "the agent cannot signal processes outside its session", ""),
    ("abstract", "Landlock: abstract sockets", False, "6.12", "the child connects to one of its parent's",
     "the agent cannot reach them by itself", "they rest on the supervisor alone"),
)  # fmt: skip


def check(scratch: str | None = None) -> list[Check]:
    """Try every mechanism. scratch: a directory where one can be made and removed; by default a temporary one."""
    from . import trials

    found = trials.notification(True)
    if found.get("listener"):
        reason = found["listener"]
        found = trials.notification(False)
        found["storm"] = reason
    found.update(trials.single_calls())
    found.update(_landlock(scratch))
    missed = found.get("broken") or "not reached, because something before it does not work"
    checks: list[Check] = []
    for key, name, required, since, tried, good, loss in _TABLE:
        problem = found.get(key, missed)
        if not problem:
            checks.append(Check(name, "full", good, required, since, tried))
        else:
            checks.append(
                Check(
                    name,
                    "partial" if loss else "none",
                    f"{loss}: {problem}" if loss else problem,
                    required,
                    since,
                    tried,
                )
            )
    return checks


def _landlock(scratch: str | None) -> dict[str, str]:
    from . import trials

    for base in (scratch,) if scratch else _SCRATCH:
        place = f"{base}/remit-probe-{os.urandom(8).hex()}"
        try:
            os.mkdir(place, 0o700)
        except OSError:
            continue
        try:
            return trials.landlock_floor(place)
        finally:
            _remove(place)
    return {"files": "no directory could be made to try it in"}


def _remove(place: str) -> None:
    for name in ("/a/file", "/b/file"):
        try:
            os.unlink(place + name)
        except FileNotFoundError:
            pass
    for name in ("/a", "/b", "/closed", ""):
        try:
            os.rmdir(place + name)
        except FileNotFoundError:
            pass


def refuse(checks: list[Check]) -> None:
    """Raise Unsupported with one sentence for each required mechanism that does not work; else return."""
    lacking = [
        f"{one.name} does not work here ({one.detail}); it came with Linux {one.since}"
        for one in checks
        if one.required and one.state != "full"
    ]
    if lacking:
        raise Unsupported(f"this is Linux {os.uname().release}: " + "; ".join(lacking))


def require(cache: str | None = None) -> list[Check]:
    """Return the checks, from `cache` where it is of this boot and kernel; raise Unsupported for what is required.

    cache: a file in a directory that agents cannot write. One that cannot be read or written is tried without; only
    a full success is kept, so that a repaired system is noticed at once.
    """
    key = _key()
    kept = _load(cache, key) if cache and key else None
    if kept is not None:
        return kept
    checks = check()
    refuse(checks)
    if cache and key:
        _store(cache, key, checks)
    return checks


def _key() -> str:
    try:
        fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        boot = os.read(fd, 64).decode("ascii", "replace").strip()
    finally:
        os.close(fd)
    uname = os.uname()
    return f"{_FORMAT} {boot} {uname.release} {uname.version} {os.getuid()}"


def _load(cache: str, key: str) -> list[Check] | None:
    try:
        fd = os.open(cache, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            return None
        lines = os.read(fd, _CACHE_LIMIT).decode("utf-8", "replace").split("\n")
    except OSError:
        return None
    finally:
        os.close(fd)
    rows = {row[0]: row for row in _TABLE}
    if lines[0] != key or len(lines) != 1 + len(rows):
        return None
    checks: list[Check] = []
    for line in lines[1:]:
        word, _tab, problem = line.partition("\t")
        row = rows.pop(word, None)
        if row is None or (row[2] and problem):
            return None
        _word, name, required, since, tried, good, _loss = row
        checks.append(
            Check(name, "partial" if problem else "full", problem or good, required, since, tried)
        )
    return checks


def _store(cache: str, key: str, checks: list[Check]) -> None:
    words = {row[1]: row[0] for row in _TABLE}
    lines = [key]
    for one in checks:
        detail = "" if one.state == "full" else one.detail.replace("\n", " ").replace("\t", " ")
        lines.append(f"{words[one.name]}\t{detail}")
    fresh = f"{cache}.{os.getpid()}"
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, "\n".join(lines).encode("utf-8", "replace"))
        finally:
            os.close(fd)
        os.rename(fresh, cache)
    except OSError as error:
        if error.errno != errno.EEXIST:  # a concurrent start in a process of the same number: leave it
            try:
                os.unlink(fresh)
            except OSError:
                pass
