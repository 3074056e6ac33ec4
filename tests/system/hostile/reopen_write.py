"""Turn a descriptor that was rightly opened for reading into one for writing.

Escape: a file that may only be read is changed.
Trap: /proc/self/fd/N opens the inode anew, with new flags; a policy that looks at the link's name only.
"""

import mmap
import os

from _attack import ARENA, O_PATH, changed, run

PATH = ARENA["readonly_file"]


def via(name: str, flags: int, first: int = os.O_RDONLY) -> object:
    def act() -> str:
        fd = os.open(PATH, first)
        spelled = name.format(fd=fd, pid=os.getpid(), ppid=os.getppid())
        return changed(PATH, lambda: os.write(os.open(spelled, flags), b"changed"))

    return act


def mapped() -> str:
    fd = os.open(PATH, os.O_RDWR)
    return changed(PATH, lambda: mmap.mmap(fd, 0).write(b"changed"))


def set_flags() -> str:
    import fcntl

    fd = os.open(PATH, os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR)
    return changed(PATH, lambda: os.write(fd, b"changed"))


run(
    {
        "self fd": via("/proc/self/fd/{fd}", os.O_WRONLY),
        "own pid": via("/proc/{pid}/fd/{fd}", os.O_RDWR),
        "thread-self": via("/proc/thread-self/fd/{fd}", os.O_WRONLY),
        "dev fd": via("/dev/fd/{fd}", os.O_WRONLY),
        "append": via("/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND),
        "cut": via("/proc/self/fd/{fd}", os.O_WRONLY | os.O_TRUNC),
        "from O_PATH": via("/proc/self/fd/{fd}", os.O_WRONLY, O_PATH),
        "mapped": mapped,
        "F_SETFL": set_flags,
    },
    native={"F_SETFL": "the access mode of a descriptor is fixed"},
)
