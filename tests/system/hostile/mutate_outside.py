"""Make, cut, remove and rename things outside the project, and in what may only be read.

Escape: the place differs afterwards.
Trap: each of these has two or three system calls; creating is not writing.
"""

import os
import socket

from _attack import ARENA, AT_FDCWD, AT_REMOVEDIR, call, changed, run

OUT = ARENA["outside"]


def in_place(label: str, d: str, victim: str) -> dict[str, object]:
    new = d + "/made"
    source = ARENA["project"] + "/source"

    def movable() -> str:
        with open(source, "w") as f:
            f.write("x")
        return source

    def cleaned(act: object) -> object:
        def go() -> str:
            got = changed(new, act)
            if os.path.lexists(new):
                (os.rmdir if os.path.isdir(new) and not os.path.islink(new) else os.unlink)(new)
            return got

        return go

    acts = {
        "mkdir": cleaned(lambda: call("mkdir", new, 0o700)),
        "mkdirat": cleaned(lambda: call("mkdirat", AT_FDCWD, new, 0o700)),
        "mknod": cleaned(lambda: call("mknod", new, 0o100600, 0)),
        "mkfifo": cleaned(lambda: call("mknodat", AT_FDCWD, new, 0o010600, 0)),
        "symlink": cleaned(lambda: call("symlink", b"/x", new)),
        "symlinkat": cleaned(lambda: call("symlinkat", b"/x", AT_FDCWD, new)),
        "rename to": cleaned(lambda: call("rename", movable(), new)),
        "renameat to": cleaned(lambda: call("renameat", AT_FDCWD, movable(), AT_FDCWD, new)),
        "link to": cleaned(lambda: os.link(movable(), new)),
        "bind": cleaned(lambda: socket.socket(socket.AF_UNIX).bind(new)),
        "truncate": lambda: changed(victim, lambda: call("truncate", victim, 1)),
        "write": lambda: changed(victim, lambda: os.write(os.open(victim, os.O_WRONLY), b"y")),
        "rename from": lambda: changed(victim, lambda: os.rename(victim, ARENA["project"] + "/stolen")),
        "unlink": lambda: changed(_remade(victim), lambda: call("unlink", victim)),
        "unlinkat": lambda: changed(_remade(victim), lambda: call("unlinkat", AT_FDCWD, victim, 0)),
    }
    return {f"{how}, {label}": act for how, act in acts.items()}


def _remade(path: str) -> str:
    """Natively an earlier attempt took the file away; under remit it is still there."""
    if not os.path.lexists(path):
        with open(path, "w") as f:
            f.write("again")
    return path


def rmdir(flags: int) -> object:
    def act() -> str:
        path = (
            f"{ARENA['home']}/.local/share/dbus-1/services"
            if flags
            else f"{ARENA['home']}/.config/autostart"
        )
        how = (
            (lambda: call("unlinkat", AT_FDCWD, path, AT_REMOVEDIR))
            if flags
            else (lambda: call("rmdir", path))
        )
        return changed(path, how)

    return act


run(
    {
        **in_place("outside", OUT, OUT + "/victim-unlink"),
        **in_place("read-only", ARENA["readonly"], ARENA["readonly_file"]),
        "rmdir": rmdir(0),
        "unlinkat of a directory": rmdir(1),
    }
)
