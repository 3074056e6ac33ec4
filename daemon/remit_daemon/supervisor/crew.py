"""Threads for what must wait for others: those that are through with one task wait for the next.

A connect waits for a thread to begin; to wake one costs a tenth of making one. Whoever starts tasks bounds how many run.
"""

from __future__ import annotations

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_IDLE = 4  # threads that wait; more end when they are through: each holds a stack


class _Member:
    __slots__ = ("args", "next", "work")

    def __init__(self, work: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.work = work
        self.args = args
        self.next = _thread.allocate_lock()
        self.next.acquire()


class Crew:
    """The threads of one session."""

    def __init__(self) -> None:
        self._idle: list[_Member] = []

    def start(self, work: Callable[..., None], *args: Any) -> None:
        """Have ``work``, which raises nothing, done with ``args`` in a thread. Raises RuntimeError when none can be had."""
        try:
            member = self._idle.pop()
        except IndexError:
            _thread.start_new_thread(self._serve, (_Member(work, args),))
            return
        member.work, member.args = work, args
        member.next.release()

    def _serve(self, member: _Member) -> None:
        while True:
            member.work(*member.args)
            member.args = ()  # what was done is kept alive by nobody
            if len(self._idle) >= _IDLE:
                return
            self._idle.append(member)
            member.next.acquire()
