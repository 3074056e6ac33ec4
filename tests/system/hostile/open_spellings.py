"""Read a closed file under every other spelling of its name.

Escape: the token of the secret outside the project, or of the hole inside it, is read.
Trap: a policy that compares text instead of the object; /proc/self seen with the supervisor's eyes.
"""

import os
import threading

from _attack import ARENA, read, run

SECRET = ARENA["secret"]
HOLE = ARENA["hole_file"]
PROJECT = ARENA["project"]
REL = os.path.relpath(SECRET, PROJECT)


def relative() -> str:
    os.chdir(PROJECT)
    return read(REL)


def thread_self() -> str:
    got: list[str] = []

    def look() -> None:
        try:
            got.append(read("/proc/thread-self/root" + SECRET))
        except OSError:
            got.append("")

    t = threading.Thread(target=look)
    t.start()
    t.join()
    return got[0]


def self_cwd() -> str:
    os.chdir(PROJECT)
    return read("/proc/self/cwd/" + REL)


def cwd_inside() -> str:
    os.chdir(os.path.dirname(SECRET))
    return read("id_ed25519")


def dev_fd() -> str:
    fd = os.open(PROJECT, os.O_RDONLY)
    return read(f"/dev/fd/{fd}/{REL}")


def task_root() -> str:
    return read(f"/proc/self/task/{os.getpid()}/root{SECRET}")


def symlink_chain() -> str:
    at = SECRET
    for n in range(12):
        link = f"{PROJECT}/chain{n}"
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(at, link)
        at = link
    return read(at)


def symlinked_ancestor() -> str:
    link = PROJECT + "/up"
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink("../..", link)
    return read(f"{link}/home/.ssh/id_ed25519")


run(
    {
        "plain": lambda: read(SECRET),
        "hole": lambda: read(HOLE),
        "double slash": lambda: read(SECRET.replace("/", "//")),
        "dots": lambda: read(SECRET.replace("/", "/./")),
        "dotdot": lambda: read(PROJECT + "/src/../../" + REL.removeprefix("../")),
        "hole by dotdot": lambda: read(PROJECT + "/src/../secret/key"),
        "hole by double slash": lambda: read(PROJECT + "//secret///key"),
        "long": lambda: read("/." * ((4094 - len(SECRET)) // 2) + SECRET),
        "relative": relative,
        "from inside": cwd_inside,
        "self root": lambda: read("/proc/self/root" + SECRET),
        "self root twice": lambda: read("/proc/self/root/proc/self/root" + SECRET),
        "self cwd": self_cwd,
        "thread-self": thread_self,
        "task root": task_root,
        "own pid root": lambda: read(f"/proc/{os.getpid()}/root{SECRET}"),
        "parent root": lambda: read(f"/proc/{os.getppid()}/root{SECRET}"),
        "dev fd": dev_fd,
        "symlink chain": symlink_chain,
        "symlinked ancestor": symlinked_ancestor,
        "symlink in tmp": lambda: read(ARENA["tmp_link"]),
        "prefix collision": lambda: read(ARENA["neighbour"]),
        "trailing slash": lambda: read(SECRET + "/"),
        "case": lambda: read(SECRET.replace(".ssh", ".SSH")),
        "over PATH_MAX": lambda: read("/." * 2100 + SECRET),
    },
    native={
        "trailing slash": "the kernel says ENOTDIR",
        "case": "the file system tells cases apart",
        "over PATH_MAX": "the kernel says ENAMETOOLONG",
    },
)
