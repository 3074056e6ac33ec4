"""Signal a process outside, by every way of sending.

Escape: the victim's own record of signals grows.
Trap: kill is watched, but queued signals, pidfds, process groups and asynchronous I/O send as well.
"""

import fcntl
import os
import signal
import struct
import time

from _attack import ARENA, call, run

PID = ARENA["victim"]
LOG = ARENA["victim_log"]
SIG = signal.SIGUSR2


def seen(send: object) -> object:
    def act() -> str:
        before = os.stat(LOG).st_size
        send()  # type: ignore[operator]
        for _ in range(40):
            time.sleep(0.01)
            if os.stat(LOG).st_size > before:
                return "the victim got the signal"
        return ""

    return act


def info() -> bytes:
    return struct.pack("iii4xii", SIG, 0, -1, os.getpid(), os.getuid()).ljust(128, b"\0")


def async_io(number: int, owner: object) -> object:
    def send() -> None:
        import socket

        a, b = socket.socketpair()
        fcntl.fcntl(a, number, owner)  # type: ignore[call-overload]
        fcntl.fcntl(a, 10, SIG)  # F_SETSIG
        fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        b.send(b"x")

    return seen(send)


def lease() -> None:
    """A directory notification (F_NOTIFY) sends to its owner as well."""
    fd = os.open(ARENA["project"], os.O_RDONLY)
    fcntl.fcntl(fd, 10, SIG)
    fcntl.fcntl(fd, fcntl.F_SETOWN, PID)
    fcntl.fcntl(fd, 1026, 0x4)  # F_NOTIFY, DN_CREATE
    name = ARENA["project"] + f"/notify{os.getpid()}"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    os.unlink(name)


run(
    {
        "kill": seen(lambda: os.kill(PID, SIG)),
        "kill its group": seen(lambda: os.killpg(os.getpgid(PID), SIG)),
        "tkill": seen(lambda: call("tkill", PID, SIG)),
        "tgkill": seen(lambda: call("tgkill", PID, PID, SIG)),
        "rt_sigqueueinfo": seen(lambda: call("rt_sigqueueinfo", PID, SIG, info())),
        "rt_tgsigqueueinfo": seen(lambda: call("rt_tgsigqueueinfo", PID, PID, SIG, info())),
        "pidfd_send_signal": seen(
            lambda: call("pidfd_send_signal", call("pidfd_open", PID, 0), SIG, None, 0)
        ),
        "F_SETOWN": async_io(fcntl.F_SETOWN, PID),
        "F_SETOWN_EX": async_io(15, struct.pack("ii", 1, PID)),
        "F_NOTIFY": seen(lease),
    }
)
