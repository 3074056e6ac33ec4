"""The same against remit itself: the supervisor (our parent) and the daemon.

Escape: a descriptor, memory, environment or the standard streams of either are reached, or either is signalled.
Trap: the broker runs as the same user; the supervisor holds the listener and the policy.
"""

import os
import signal

from _attack import ARENA, call, run

WHO = {"supervisor": int(os.environ.get("PROBE_PARENT", os.getppid())), "daemon": ARENA["remitd"]}


def opened(path: str) -> str:
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 10)
    return f"{path} is readable"


def ways(name: str, pid: int) -> dict[str, object]:
    def getfd() -> str:
        pidfd = call("pidfd_open", pid, 0)
        last = OSError()
        for fd in range(40):
            try:
                return f"took descriptor {call('pidfd_getfd', pidfd, fd, 0)}"
            except OSError as e:
                last = e
        raise last

    def fds() -> str:
        last = OSError()
        for fd in range(40):
            try:
                os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR | os.O_NONBLOCK)
                return f"opened descriptor {fd}"
            except OSError as e:
                last = e
        raise last

    def pidfd_signal() -> str:
        call("pidfd_send_signal", call("pidfd_open", pid, 0), signal.SIGCONT, None, 0)
        return "signalled"

    def kill(sig: int) -> object:
        def act() -> str:
            os.kill(pid, sig)
            return "signalled"

        return act

    def limit() -> str:
        call("prlimit64", pid, 7, (b"\0" * 8) + b"\0" * 8, None)
        return "its limit on descriptors is 0"

    def seize() -> str:
        call("ptrace", 0x4206, pid, 0, 0)
        return "traced"

    def nice() -> str:
        os.setpriority(os.PRIO_PROCESS, pid, 19)
        return "its priority is the lowest"

    def cpus() -> str:
        os.sched_setaffinity(pid, {0})
        return "its processors were chosen"

    return {
        f"{name} environ": lambda: opened(f"/proc/{pid}/environ"),
        f"{name} mem": lambda: opened(f"/proc/{pid}/mem"),
        f"{name} maps": lambda: opened(f"/proc/{pid}/maps"),
        f"{name} fd": fds,
        f"{name} pidfd_getfd": getfd,
        f"{name} pidfd_send_signal": pidfd_signal,
        f"{name} SIGCONT": kill(signal.SIGCONT),
        f"{name} ptrace": seize,
        f"{name} setpriority": nice,
        f"{name} sched_setaffinity": cpus,
        f"{name} prlimit64": limit,
        f"{name} SIGKILL": kill(signal.SIGKILL),
    }


ALL = {way: act for name, pid in WHO.items() if pid for way, act in ways(name, pid).items()}
if not ARENA["remitd"]:
    ALL = {"nothing to attack": lambda: ""}
run(ALL, native=dict.fromkeys(ALL, "aims at remit itself"))
