"""Run a function in a really confined child, as an ordinary user, under a supervisor of thirty lines.

`supervised(child, ...)` forks twice: a process that gives up root where there is some, and in it the confined child.
Results travel by `marshal`, so they are plain values.
"""

from __future__ import annotations

import ctypes
import fcntl
import marshal
import os
import select
import signal
import struct
import traceback
from collections.abc import Callable
from typing import Any

from remit_daemon.kernel import bpf, landlock
from remit_daemon.kernel.confine import confine
from remit_daemon.kernel.syscalls import NAMES, NATIVE
from remit_daemon.kernel.trials import call

ORDINARY = 65534
NOTIFIED = -131  # ENOTRECOVERABLE: what the supervisor below answers to everything it is told to refuse
LIMIT_S = 10
_PR_SET_DUMPABLE = 4

__all__ = ["NATIVE", "NOTIFIED", "Outcome", "as_user", "call", "supervised"]


class Outcome:
    """value: what the child returned. status: its wait status. seen: (name, arguments) of each notification."""

    def __init__(self, value: Any, status: int, seen: list[tuple[str, tuple[int, ...]]]) -> None:
        self.value = value
        self.status = status
        self.seen = seen

    @property
    def names(self) -> list[str]:
        return [name for name, _arguments in self.seen]

    @property
    def signal(self) -> int:
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else 0


def give_up_root() -> None:
    """Become an ordinary user for good, and stay readable for one's own parent."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(ORDINARY, ORDINARY, ORDINARY)
        os.setresuid(ORDINARY, ORDINARY, ORDINARY)
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    assert os.getuid() != 0


def as_user(body: Callable[[], Any]) -> Any:
    """Return body() as run in a forked process of an ordinary user; its exceptions become AssertionError."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(LIMIT_S)
            os.close(read)
            give_up_root()
            try:
                word = marshal.dumps((True, body()))
            except BaseException:
                word = marshal.dumps((False, traceback.format_exc()))
            with os.fdopen(write, "wb") as pipe:
                pipe.write(word)
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        word = pipe.read()
    _pid, status = os.waitpid(pid, 0)
    assert word, f"the ordinary process ended with status {status}"
    good, value = marshal.loads(word)
    assert good, value
    return value


def supervised(
    child: Callable[[], Any],
    *,
    rules: Callable[[], landlock.Ruleset] | None = None,
    refuse: Callable[[str, tuple[int, ...]], bool] = lambda _name, _arguments: True,
    wait_killable: bool = True,
    **options: Any,
) -> Outcome:
    """Run `child` confined; answer NOTIFIED to calls that `refuse` picks and let the others continue."""
    blob = bpf.build(**({"reads_fixed": False, "net_all": False} | options))
    value, status, seen = as_user(lambda: _supervise(child, rules, refuse, blob, wait_killable))
    return Outcome(value, status, seen)


def _supervise(
    child: Any, rules: Any, refuse: Any, blob: bytes, wait_killable: bool
) -> tuple[Any, int, list[Any]]:
    read, write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ruleset = rules() if rules else None
            os.write(write, struct.pack("i", confine(ruleset, blob, wait_killable=wait_killable)))
            os.read(go_read, 1)
            os.write(write, marshal.dumps(child()))
            code = 0
        except BaseException:
            os.write(write, marshal.dumps(traceback.format_exc()))
        finally:
            os._exit(code)
    os.close(write)
    pidfd = os.pidfd_open(pid)
    word = os.read(read, 4)
    if len(word) != 4:
        raise AssertionError(f"no listener: {word!r} {os.waitpid(pid, 0)}")
    listener = call("pidfd_getfd", pidfd, struct.unpack("i", word)[0], 0)
    if listener < 0:
        raise AssertionError((word + os.read(read, 9999))[4:] or os.strerror(-listener))
    os.write(go_write, b"g")
    seen: list[tuple[str, tuple[int, ...]]] = []
    parts: list[bytes] = []
    sources = [listener, read, pidfd]
    while True:
        ready = select.select(sources, [], [])[0]
        if read in ready:
            part = os.read(read, 65536)
            if not part:  # its end; an exec closes it while the program still runs
                sources.remove(read)
            parts.append(part)
            continue
        if listener not in ready:
            break
        buffer = bytearray(80)
        try:
            fcntl.ioctl(listener, 0xC0502100, buffer)
        except OSError:
            if pidfd in ready:
                break
            continue
        ident, _thread, _flags, number, _arch, _ip, *arguments = struct.unpack("=QIIiIQ6Q", buffer)
        name = NAMES[number]
        seen.append((name, tuple(arguments)))
        refused = refuse(name, tuple(arguments))
        response = struct.pack("=QqiI", ident, 0, NOTIFIED if refused else 0, 0 if refused else 1)
        try:
            fcntl.ioctl(listener, 0xC0182101, response)
        except OSError:
            pass
    status = os.waitpid(pid, 0)[1]
    raw = b"".join(parts)
    value = marshal.loads(raw) if raw else None
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError(value)
    return value, status, seen
