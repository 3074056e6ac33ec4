"""Make what is protected but does not exist yet.

Escape: the name exists afterwards.
Trap: a rule compiled from what exists at the start says nothing of what comes later.
"""

import os
import socket

from _attack import ARENA, AT_FDCWD, call, run

PROJECT = ARENA["project"]
VAULT = ARENA["vault"]  # denied, absent
HOOK = ARENA["hooks"] + "/pre-commit"


def made(path: str, act: object) -> object:
    def go() -> str:
        try:
            act()  # type: ignore[operator]
        except OSError:
            if not os.path.lexists(path):
                raise
        if not os.path.lexists(path):
            return ""
        try:
            os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        except OSError:
            pass
        return f"{os.path.relpath(path, PROJECT)} came to be"

    return go


def source(name: str, directory: bool = False) -> str:
    path = f"{PROJECT}/{name}"
    if directory:
        os.makedirs(path, exist_ok=True)
    else:
        with open(path, "w") as f:
            f.write("#!/bin/sh\n")
    return path


def bind() -> None:
    socket.socket(socket.AF_UNIX).bind(VAULT)


def relative_bind() -> None:
    os.chdir(PROJECT)
    socket.socket(socket.AF_UNIX).bind("vault")


def through_link() -> None:
    link = PROJECT + "/tovault"
    if not os.path.lexists(link):
        os.symlink("vault", link)
    os.close(os.open(link, os.O_CREAT | os.O_WRONLY, 0o600))


def by_dirfd() -> None:
    fd = os.open(PROJECT, os.O_RDONLY)
    os.mkdir("vault", dir_fd=fd)


run(
    {
        "open": made(VAULT, lambda: os.close(os.open(VAULT, os.O_CREAT | os.O_WRONLY))),
        "open O_EXCL": made(VAULT, lambda: os.close(os.open(VAULT, os.O_CREAT | os.O_EXCL | os.O_RDWR))),
        "creat": made(VAULT, lambda: call("creat", VAULT, 0o600)),
        "mkdir": made(VAULT, lambda: os.mkdir(VAULT)),
        "mkdir with a slash": made(VAULT, lambda: os.mkdir(VAULT + "/")),
        "mkdir by descriptor": made(VAULT, by_dirfd),
        "mkdir by dotdot": made(VAULT, lambda: os.mkdir(PROJECT + "/src/../vault")),
        "rename a directory": made(VAULT, lambda: os.rename(source("d1", True), VAULT)),
        "rename a file": made(VAULT, lambda: os.rename(source("f1"), VAULT)),
        "link": made(VAULT, lambda: os.link(source("f2"), VAULT)),
        "symlink": made(VAULT, lambda: os.symlink("/etc", VAULT)),
        "mkfifo": made(VAULT, lambda: os.mkfifo(VAULT)),
        "mknod": made(VAULT, lambda: os.mknod(VAULT, 0o100600)),
        "bind a socket": made(VAULT, bind),
        "bind a socket, relative": made(VAULT, relative_bind),
        "through a dangling link": made(VAULT, through_link),
        "hook by open": made(HOOK, lambda: os.close(os.open(HOOK, os.O_CREAT | os.O_WRONLY, 0o700))),
        "hook by rename": made(HOOK, lambda: os.rename(source("f3"), HOOK)),
        "hook by link": made(HOOK, lambda: os.link(source("f4"), HOOK)),
        "hook by symlink": made(HOOK, lambda: os.symlink(source("f5"), HOOK)),
        "hook by symlinkat": made(HOOK, lambda: call("symlinkat", source("f6"), AT_FDCWD, HOOK)),
        "name that is no UTF-8": made(
            os.fsdecode(os.fsencode(ARENA["hole"]) + b"/\xff\xfe"),
            lambda: os.close(os.open(os.fsencode(ARENA["hole"]) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY)),
        ),
    }
)
