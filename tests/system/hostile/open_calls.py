"""Open closed files with every system call that opens.

Escape: a token is read, or a file outside the project is created or cut.
Trap: an entry point that the filter forgot (creat, openat2, O_TMPFILE), or flags that hide intent
(O_RDONLY|O_TRUNC writes, O_PATH is upgraded through /proc/self/fd).
"""

import os
import struct

from _attack import ARENA, AT_FDCWD, O_PATH, O_TMPFILE, call, changed, read, read_fd, run

SECRET = ARENA["secret"]
OUTSIDE = ARENA["outside"]
PROJECT = ARENA["project"]
REL = os.path.relpath(SECRET, PROJECT)


def openat2(path: str, flags: int, resolve: int, dirfd: int = AT_FDCWD, mode: int = 0) -> int:
    how = struct.pack("QQQ", flags, mode, resolve)
    return call("openat2", dirfd, path, how, len(how))


def with_resolve(resolve: int, name: str) -> object:
    def act() -> str:
        os.chdir(os.path.dirname(SECRET))
        return read_fd(openat2(name, os.O_RDONLY, resolve))

    return act


def in_root() -> str:
    fd = os.open("/", O_PATH | os.O_DIRECTORY)
    return read_fd(openat2(SECRET, os.O_RDONLY, 16, fd))


def upgraded() -> str:
    fd = os.open(SECRET, O_PATH)
    return read(f"/proc/self/fd/{fd}")


def upgraded_dir() -> str:
    fd = os.open(os.path.dirname(SECRET), O_PATH | os.O_DIRECTORY)
    return read(f"/proc/self/fd/{fd}/id_ed25519")


def upgraded_dirfd() -> str:
    fd = os.open(os.path.dirname(SECRET), O_PATH | os.O_DIRECTORY)
    return read("id_ed25519", dir_fd=fd)


def tmpfile() -> str:
    fd = os.open(OUTSIDE, O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"x")
    return f"an unnamed file of {os.fstat(fd).st_size} byte in a closed directory"


def tmpfile_linked() -> str:
    fd = os.open(OUTSIDE, O_TMPFILE | os.O_RDWR, 0o600)
    name = OUTSIDE + "/planted"
    return changed(name, lambda: call("linkat", AT_FDCWD, f"/proc/self/fd/{fd}", AT_FDCWD, name, 0x400))


def cut_by_read(path: str) -> object:
    return lambda: changed(path, lambda: os.open(path, os.O_RDONLY | os.O_TRUNC))


def accmode3() -> str:
    os.open(ARENA["outside_file"], 3)
    return "opened with access mode 3"


run(
    {
        "open": lambda: read_fd(call("open", SECRET, os.O_RDONLY)),
        "openat": lambda: read_fd(call("openat", AT_FDCWD, SECRET, os.O_RDONLY, 0)),
        "openat absolute with bad dirfd": lambda: read_fd(call("openat", 9999, SECRET, os.O_RDONLY, 0)),
        "openat2": lambda: read_fd(openat2(SECRET, os.O_RDONLY, 0)),
        "openat2 no symlinks": with_resolve(4, SECRET),
        "openat2 beneath": with_resolve(8, "id_ed25519"),
        "openat2 in root": in_root,
        "openat2 no xdev": with_resolve(1, "id_ed25519"),
        "open for writing": lambda: read_fd(os.open(SECRET, os.O_RDWR)),
        "creat": lambda: changed(
            ARENA["outside_file"], lambda: call("creat", ARENA["outside_file"], 0o600)
        ),
        "create a new name": lambda: changed(
            OUTSIDE + "/new", lambda: os.open(OUTSIDE + "/new", os.O_CREAT | os.O_WRONLY)
        ),
        "read and cut": cut_by_read(ARENA["outside_file"]),
        "read and cut what may be read": cut_by_read(ARENA["readonly_file"]),
        "append to what may be read": lambda: changed(
            ARENA["readonly_file"], lambda: os.write(os.open(ARENA["readonly_file"], 0o2001), b"x")
        ),
        "access mode 3": accmode3,
        "O_PATH upgraded": upgraded,
        "O_PATH directory": upgraded_dir,
        "O_PATH dirfd": upgraded_dirfd,
        "O_TMPFILE": tmpfile,
        "O_TMPFILE linked": tmpfile_linked,
        "list": lambda: [n for n in os.listdir(os.path.dirname(SECRET)) if n.startswith("id_")],
        "list by O_PATH": lambda: [
            n
            for n in os.listdir(f"/proc/self/fd/{os.open(os.path.dirname(SECRET), O_PATH)}/")
            if n.startswith("id_")
        ],
    },
    native={"openat2 no symlinks": "a parent of the arena may be a symbolic link"}
    if os.path.realpath(SECRET) != SECRET
    else {},
)
