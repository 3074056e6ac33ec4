"""The session mark: an RLIMIT_RTTIME that every process of a confined tree inherits.

The limit is inherited by fork, kept by exec and readable in ``/proc/PID/limits`` whatever the process
is; it limits nothing in practice (microseconds, some 70,000 years). Between 2**61 and 2**62 the hard limit is a session's ``tag``, and
the soft one the mark of the party in it: the same value, or, below the middle, a sub-session's own. A process can get from its session to
a sub-session and from there further down, never back: an agent's filter refuses it to change the limit, and the
supervisor puts marks on its processes alone. Standard library only: the supervisor uses this module as well.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    import signal
else:
    import _signal as signal  # the C module alone: `signal` imports `enum`, and supervisors start often
    import resource

LOW = 1 << 61
MIDDLE = LOW + (1 << 60)  # sub-sessions' marks are below it: a soft limit is no higher than the hard one
HIGH = 1 << 62
_LINE = b"Max realtime timeout"  # fs/proc/base.c, lnames[RLIMIT_RTTIME]
PATIENCE = 10.0  # seconds that kill_tree goes on; a process in uninterruptible sleep dies later by itself


def new_tag() -> int:
    """Return a fresh random mark."""
    return MIDDLE + (int.from_bytes(os.urandom(8), "little") >> 4)


def new_sub_mark() -> int:
    """Return a fresh random mark for a sub-session; of no use in a session whose own mark is lower."""
    return LOW + (int.from_bytes(os.urandom(8), "little") >> 4)


def is_tag(value: int) -> bool:
    """Tell whether ``value`` can be a mark; any such limit counts as being inside a session."""
    return LOW <= value < HIGH


def marks_of(pid: int) -> tuple[int, int]:
    """Return the marks of process ``pid``: its session's and its party's, equal outside sub-sessions. Zeros: none, or it is gone."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as f:
            text = f.read()
    except OSError:
        return 0, 0
    at = text.find(_LINE)
    if at < 0:
        return 0, 0
    soft, hard = (int(x) if x.isdigit() else 0 for x in text[at + len(_LINE) :].split(None, 2)[:2])
    if not is_tag(soft):
        return 0, 0
    return (hard if is_tag(hard) else soft), soft


def tag_of(pid: int) -> int:
    """Return the mark of the session that process ``pid`` is in, or 0 when it is in none or gone."""
    return marks_of(pid)[0]


def inside() -> bool:
    """Tell whether this very process is inside a session."""
    return is_tag(resource.getrlimit(resource.RLIMIT_RTTIME)[0])


def stat_of(pid: int) -> tuple[str, int, int]:
    """Return (state letter, parent's pid, start time in ticks) of ``pid`` from proc(5) ``stat``.

    Raises OSError when it is gone.
    """
    with open(f"/proc/{pid}/stat", "rb") as f:
        cells = f.read().rpartition(b")")[2].split()
    return cells[0].decode("ascii"), int(cells[1]), int(cells[19])


def marked(tag: int) -> list[int]:
    """Return the pids of the living processes that carry ``tag``, a session's or a sub-session's; a zombie is not living."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and tag in marks_of(int(name)):
            try:
                if stat_of(int(name))[0] not in "ZX":
                    found.append(int(name))
            except OSError:
                pass
    return found


def _signal_all(tag: int, pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            # The pid may have been given to another process since it was listed: ask the one we hold.
            if tag in marks_of(pid):
                signal.pidfd_send_signal(fd, number)
        except OSError:
            pass
        finally:
            os.close(fd)


def kill_tree(tag: int, patience: float = PATIENCE) -> bool:
    """Kill every process that carries ``tag``, again and again until none is left.

    All are stopped first, so that none forks faster than it is killed. Blocks for at most ``patience`` seconds.
    Returns whether none is left. A value that is no mark kills nothing.
    """
    if not is_tag(tag):
        return True
    end = time.monotonic() + patience
    stopped: set[int] = set()
    while time.monotonic() < end:
        fresh = [pid for pid in marked(tag) if pid not in stopped]
        if not fresh:
            break
        _signal_all(tag, fresh, signal.SIGSTOP)
        stopped.update(fresh)
    while True:
        left = marked(tag)
        if not left:
            return True
        if time.monotonic() >= end:
            return False
        _signal_all(tag, left, signal.SIGKILL)
        time.sleep(0.002)
