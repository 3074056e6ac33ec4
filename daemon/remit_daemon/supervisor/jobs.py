"""Signals, job control and the end: what makes an agent under remit behave in a terminal as it would without.

The agent stays in our process group, so the terminal's signals reach it as ever; we ignore those meant for it, stop
when it was stopped by job control (the shell then sees the job stopped), and end as it ended. A thread waits for
signals and children; the loop never has to be interrupted.
"""

from __future__ import annotations

import ctypes
import os

from remit_daemon.peers import mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal

_FOR_THE_AGENT = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_WAITED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
_JOB_CONTROL = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_CLD_STOPPED = 5
_SIG_DFL = ctypes.c_void_p(0)
_libc = ctypes.CDLL(None)
_GRACE = 1.0  # seconds between SIGTERM and SIGKILL for what the agent left running


def block() -> set[int]:
    """Take the signals that the thread waits for, ignore those meant for the agent; returns the mask before."""
    old: set[int] = set(signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED))
    for number in _FOR_THE_AGENT:
        signal.signal(number, signal.SIG_IGN)
    return old


class Jobs:
    """The waiting thread. ``finish`` is called once, in it, with the agent's wait status."""

    def __init__(self, pid: int, tag: int, finish: Callable[[int], None]) -> None:
        self._pid = pid
        self._tag = tag
        self._finish = finish

    def serve(self) -> None:
        """Run until the agent has ended and its tree with it."""
        while True:
            status = self._reap()
            if status is not None:
                break
            number = signal.sigwait(_WAITED)
            if number != signal.SIGCHLD:
                self.signal_agent(number)
        self.end_tree()
        self._finish(status)

    def _reap(self) -> int | None:
        """Take note of every child's change; returns the agent's status once it has ended."""
        ended = None
        while True:
            try:
                change = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOHANG)
            except ChildProcessError:
                return ended
            if change is None:
                return ended
            if change.si_pid != self._pid:
                continue
            if change.si_code == _CLD_STOPPED:
                if change.si_status in _JOB_CONTROL:
                    os.kill(os.getpid(), signal.SIGSTOP)
                continue
            ended = change.si_status if change.si_code == os.CLD_EXITED else -change.si_status

    def _childless(self) -> bool:
        """Say whether the tree has ended by itself: we are its subreaper, so what lives of it is below us."""
        while True:
            try:
                if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is None:
                    return False
            except ChildProcessError:
                return True

    def signal_agent(self, number: int) -> None:
        """Pass a signal on to the agent's first process."""
        try:
            os.kill(self._pid, number)
        except ProcessLookupError:
            pass

    def signal_tree(self, number: int) -> None:
        """Send a signal to every process of the session."""
        signal_marked(self._tag, number)

    def end_tree(self) -> None:
        """End what the agent left running: asked first, then killed. The session's authority ends with the agent."""
        if not self._childless():
            end_marked(self._tag)


def signal_marked(tag: int, number: int) -> None:
    """Send a signal to every process that carries ``tag``."""
    for pid in mark.marked(tag):
        try:
            os.kill(pid, number)
        except OSError:
            pass


def end_marked(tag: int) -> None:
    """End every process that carries ``tag``: asked first, then killed."""
    signal_marked(tag, signal.SIGTERM)
    signal_marked(tag, signal.SIGCONT)
    import time

    end = time.monotonic() + _GRACE
    while time.monotonic() < end and mark.marked(tag):
        time.sleep(0.01)
    mark.kill_tree(tag)


def end_like(status: int) -> None:
    """End this process as the agent ended: with its exit status, or by the signal that killed it."""
    if status >= 0:
        os._exit(status)
    number = -status
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the agent's core, if any, is the one of interest
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        _libc.signal(
            number, _SIG_DFL
        )  # Python's own may be called in the main thread alone, and this is not it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)
