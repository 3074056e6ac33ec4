"""Give a closed object a permitted name, or a permitted name to a closed place.

Escape: a token is read through the new name, or a file of the hole changes.
Trap: hard links carry an inode out of its place; rules on names see the new one only.
"""

import os

from _attack import (
    ARENA,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    O_PATH,
    O_TMPFILE,
    call,
    changed,
    read,
    run,
)

PROJECT = ARENA["project"]
SECRET = ARENA["secret"]
HOOK = ARENA["hooks"] + "/post-merge"
HOOK2, HOOK3, HOOK4 = (ARENA["hooks"] + n for n in ("/pre-auto-gc", "/commit-msg", "/post-commit"))


def fresh(name: str) -> str:
    path = f"{PROJECT}/{name}"
    if os.path.lexists(path):
        os.unlink(path)
    return path


def symlinked(target: str) -> object:
    def act() -> str:
        path = fresh("sym")
        os.symlink(target, path)
        return read(path)

    return act


def linked(target: str) -> object:
    def act() -> str:
        path = fresh("hard")
        os.link(target, path)
        return read(path)

    return act


def by_descriptor(flags: int) -> object:
    def act() -> str:
        path = fresh("hardfd")
        fd = os.open(SECRET, O_PATH)
        if flags == AT_EMPTY_PATH:
            call("linkat", fd, b"", AT_FDCWD, path, flags)
        else:
            call("linkat", AT_FDCWD, f"/proc/self/fd/{fd}", AT_FDCWD, path, flags)
        return read(path)

    return act


def into_hole() -> str:
    source = fresh("hooksource")
    with open(source, "w") as f:
        f.write("#!/bin/sh\n")
    return changed(HOOK, lambda: os.link(source, HOOK))


def tmpfile_into_hole() -> str:
    fd = os.open(PROJECT, O_TMPFILE | os.O_RDWR, 0o700)
    os.write(fd, b"#!/bin/sh\n")
    name = f"/proc/self/fd/{fd}"
    return changed(HOOK2, lambda: call("linkat", AT_FDCWD, name, AT_FDCWD, HOOK2, AT_SYMLINK_FOLLOW))


def write_through_dir_link() -> str:
    path = fresh("hk")
    os.symlink(".git/hooks", path)
    return changed(HOOK3, lambda: os.open(path + "/commit-msg", os.O_CREAT | os.O_WRONLY, 0o700))


def write_through_file_link() -> str:
    path = fresh("hk2")
    os.symlink(HOOK4, path)
    return changed(HOOK4, lambda: os.open(path, os.O_CREAT | os.O_WRONLY, 0o700))


def writable_link() -> str:
    """A second, writable name for a file that may only be read."""
    path = fresh("hardro")
    os.link(ARENA["readonly_file"], path)
    return changed(ARENA["readonly_file"], lambda: os.write(os.open(path, os.O_WRONLY), b"x"))


run(
    {
        "symlink to the secret": symlinked(SECRET),
        "symlink to the hole": symlinked("secret/key"),
        "symlink to a foreign symlink": symlinked(ARENA["tmp_link"]),
        "symlink to /proc/self/root": symlinked("/proc/self/root" + SECRET),
        "hard link of the secret": linked(SECRET),
        "hard link out of the hole": linked(ARENA["hole_file"]),
        "hard link of the secret by descriptor": by_descriptor(AT_SYMLINK_FOLLOW),
        "hard link with AT_EMPTY_PATH": by_descriptor(AT_EMPTY_PATH),
        "hard link into the hooks": into_hole,
        "unnamed file linked into the hooks": tmpfile_into_hole,
        "hook through a linked directory": write_through_dir_link,
        "hook through a dangling link": write_through_file_link,
        "writable name for a read-only file": writable_link,
    },
    native={"hard link with AT_EMPTY_PATH": "older kernels want CAP_DAC_READ_SEARCH"},
)
