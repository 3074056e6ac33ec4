"""Change what names mean: namespaces, mounts, roots.

Escape: the call succeeds, or a secret is read through what it made.
Trap: an unprivileged user may become root of a namespace of his own, and mount there.
"""

import ctypes
import os
import struct

from _attack import ARENA, AT_FDCWD, call, read, run

NEWUSER, NEWNS, NEWPID, NEWNET = 0x10000000, 0x00020000, 0x20000000, 0x40000000


def made(*flags: int) -> object:
    def act() -> str:
        for f in flags:
            call("unshare", f)
        return "a namespace was made"

    return act


def mounted() -> str:
    call("unshare", NEWUSER | NEWNS)
    call("mount", b"none", ARENA["project"] + "/src", b"tmpfs", 0, None)
    return "a file system was mounted"


def bind_mounted() -> str:
    """The closed directory under a permitted name."""
    call("unshare", NEWUSER | NEWNS)
    call("mount", os.path.dirname(ARENA["secret"]), ARENA["project"] + "/src", None, 0x1000 | 0x4000, None)
    return read(ARENA["project"] + "/src/id_ed25519")


def new_root() -> str:
    call("unshare", NEWUSER)
    call("chroot", ARENA["home"])
    return read("/.ssh/id_ed25519")


def cloned(name: str) -> object:
    def act() -> str:
        if name == "clone":
            pid = call("clone", NEWUSER | 17, 0, 0, 0, 0)
        else:
            args = struct.pack("QQQQQQQQ", NEWUSER, 0, 0, 0, 17, 0, 0, 0)
            pid = call("clone3", args, len(args))
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return "a child in a namespace of its own"

    return act


def tree() -> str:
    call("unshare", NEWUSER | NEWNS)
    fd = call("open_tree", AT_FDCWD, os.path.dirname(ARENA["secret"]), 1)
    return read("id_ed25519", dir_fd=fd)


def joined() -> str:
    call("setns", call("pidfd_open", ARENA["victim"], 0), NEWUSER)
    return "joined"


def file_system() -> str:
    call("unshare", NEWUSER | NEWNS)
    call("fsopen", b"tmpfs", 0)
    return "a file system was opened"


def pivot() -> str:
    call("unshare", NEWUSER | NEWNS)
    call("pivot_root", ARENA["home"], ARENA["home"])
    return "another root"


def other_abi_of_flags() -> str:
    """High bits that the kernel ignores must not hide the flag."""
    call("unshare", ctypes.c_long(NEWUSER).value | (1 << 32))
    return "a namespace was made"


run(
    {
        "user": made(NEWUSER),
        "user, mounts": made(NEWUSER | NEWNS),
        "user, processes": made(NEWUSER | NEWPID),
        "user, network": made(NEWUSER | NEWNET),
        "mount": mounted,
        "bind mount": bind_mounted,
        "chroot": new_root,
        "pivot_root": pivot,
        "clone": cloned("clone"),
        "clone3": cloned("clone3"),
        "open_tree": tree,
        "fsopen": file_system,
        "setns": joined,
        "mount without namespace": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None) == 0,
        "unshare with high bits": other_abi_of_flags,
    },
    native={
        "setns": "one's own namespace cannot be joined again",
        "mount without namespace": "needs root",
        "pivot_root": "the arena is no mount point",
        "unshare with high bits": "the kernel refuses or cuts them",
        "chroot": "needs a mapping",
        "bind mount": "needs a recursive bind where mounts are locked",
    },
)
