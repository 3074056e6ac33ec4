"""Threads that are used again."""

from __future__ import annotations

import threading
import time

from remit_daemon.supervisor import crew


def test_all_is_done_once_and_threads_are_used_again() -> None:
    made = crew.Crew()
    done: list[int] = []
    names: set[int] = set()

    def work(number: int) -> None:
        names.add(threading.get_ident())
        done.append(number)

    for number in range(200):
        made.start(work, number)
        while len(done) <= number:
            time.sleep(0)
        while not made._idle:  # it has come back
            time.sleep(0)
    assert done == list(range(200))
    assert len(names) == 1


def test_tasks_that_wait_do_not_wait_for_each_other() -> None:
    made = crew.Crew()
    barrier = threading.Barrier(21, timeout=10)
    for _ in range(20):
        made.start(barrier.wait)
    barrier.wait()
    end = time.monotonic() + 10
    while threading.active_count() > 1 + crew._IDLE and time.monotonic() < end:
        time.sleep(0.01)
    assert len(made._idle) <= crew._IDLE
