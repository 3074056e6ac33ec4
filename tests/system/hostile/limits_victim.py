"""Change limits, priority, processors and memory placement of a process outside.

Escape: such a call succeeds.
Trap: Landlock scopes signals, but none of these.
"""

import os
import resource
import struct

from _attack import ARENA, call, run

PID = ARENA["victim"]


def writes(name: str, value: bytes) -> object:
    def act() -> str:
        fd = os.open(f"/proc/{PID}/{name}", os.O_WRONLY)
        os.write(fd, value)
        return f"wrote its {name}"

    return act


def did(act: object) -> object:
    def go() -> str:
        act()  # type: ignore[operator]
        return "succeeded"

    return go


run(
    {
        "prlimit64": did(
            lambda: call("prlimit64", PID, resource.RLIMIT_CORE, struct.pack("QQ", 0, 0), None)
        ),
        "sched_setaffinity": did(lambda: os.sched_setaffinity(PID, {0})),
        "sched_setscheduler": did(lambda: os.sched_setscheduler(PID, os.SCHED_BATCH, os.sched_param(0))),
        "sched_setparam": did(lambda: call("sched_setparam", PID, struct.pack("i", 0))),
        "sched_setattr": did(
            lambda: call("sched_setattr", PID, struct.pack("IIQiIQQQ", 48, 3, 0, 19, 0, 0, 0, 0), 0)
        ),
        "setpriority": did(lambda: os.setpriority(os.PRIO_PROCESS, PID, 19)),
        "setpriority group": did(lambda: os.setpriority(os.PRIO_PGRP, os.getpgid(PID), 19)),
        "ioprio_set": did(lambda: call("ioprio_set", 1, PID, 3 << 13)),
        "migrate_pages": did(lambda: call("migrate_pages", PID, 8, b"\1" + b"\0" * 7, b"\1" + b"\0" * 7)),
        "move_pages": did(lambda: call("move_pages", PID, 0, None, None, None, 0)),
        "oom_score_adj": writes("oom_score_adj", b"500"),
        "autogroup": writes("autogroup", b"5"),
        "coredump_filter": writes("coredump_filter", b"0"),
        "clear_refs": writes("clear_refs", b"1"),
        "timerslack_ns": writes("timerslack_ns", b"100000000"),
    },
    native={
        "autogroup": "only where the kernel groups by session",
        "timerslack_ns": "needs CAP_SYS_NICE",
        "migrate_pages": "only with NUMA",
        "move_pages": "only with NUMA",
    },
)
