"""Move a protected place, or what it lies in, to a name that no rule covers; or move something into it.

Escape: the hole's token is read, or the hooks change.
Trap: a hole inside an allowed directory vanishes when the directory is renamed.
"""

import os

from _attack import ARENA, AT_FDCWD, call, changed, read, run

PROJECT = ARENA["project"]
HOLE = ARENA["hole"]
HOOKS = ARENA["hooks"]
EXCHANGE = 2


def undo(back: object) -> None:
    try:
        back()  # type: ignore[operator]
    except OSError:
        pass


def moved(source: str, target: str, name: str) -> object:
    def act() -> str:
        os.rename(source, target)
        try:
            return read(f"{target}/{name}")
        finally:
            undo(lambda: os.rename(target, source))

    return act


def exchanged() -> str:
    other = PROJECT + "/plain"
    os.makedirs(other, exist_ok=True)
    call("renameat2", AT_FDCWD, HOLE, AT_FDCWD, other, EXCHANGE)
    try:
        return read(other + "/key")
    finally:
        undo(lambda: call("renameat2", AT_FDCWD, HOLE, AT_FDCWD, other, EXCHANGE))


def file_exchanged() -> str:
    other = PROJECT + "/plain.txt"
    with open(other, "w") as f:
        f.write("x")
    call("renameat2", AT_FDCWD, ARENA["hole_file"], AT_FDCWD, other, EXCHANGE)
    try:
        return read(other)
    finally:
        undo(lambda: call("renameat2", AT_FDCWD, ARENA["hole_file"], AT_FDCWD, other, EXCHANGE))


def file_out() -> str:
    other = PROJECT + "/out.txt"
    os.rename(ARENA["hole_file"], other)
    try:
        return read(other)
    finally:
        undo(lambda: os.rename(other, ARENA["hole_file"]))


def git_away() -> str:
    """Move .git aside, write a hook there, move it back."""
    git, away = PROJECT + "/.git", PROJECT + "/dotgit"

    def act() -> None:
        os.rename(git, away)
        try:
            os.close(os.open(away + "/hooks/post-checkout", os.O_CREAT | os.O_WRONLY, 0o700))
        finally:
            os.rename(away, git)

    return changed(HOOKS + "/post-checkout", act)


def git_made_elsewhere() -> str:
    """Build another .git with a hook, and put it in the place of the first."""
    git, other = PROJECT + "/.git", PROJECT + "/built"
    os.makedirs(other + "/hooks", exist_ok=True)
    with open(other + "/hooks/post-rewrite", "w") as f:
        f.write("#!/bin/sh\n")

    def act() -> None:
        call("renameat2", AT_FDCWD, other, AT_FDCWD, git, EXCHANGE)

    try:
        return changed(HOOKS + "/post-rewrite", act)
    finally:
        if os.path.exists(HOOKS + "/post-rewrite"):
            undo(lambda: call("renameat2", AT_FDCWD, other, AT_FDCWD, git, EXCHANGE))


def hook_moved_in() -> str:
    source = PROJECT + "/hook.sh"
    with open(source, "w") as f:
        f.write("#!/bin/sh\n")
    return changed(HOOKS + "/pre-rebase", lambda: os.rename(source, HOOKS + "/pre-rebase"))


def parent_by_dirfd() -> str:
    fd = os.open(PROJECT + "/deep", os.O_RDONLY)
    call("renameat2", fd, b"er", AT_FDCWD, PROJECT + "/er2", 0)
    try:
        return read(PROJECT + "/er2/secret/key")
    finally:
        undo(lambda: os.rename(PROJECT + "/er2", PROJECT + "/deep/er"))


def dotenv() -> str:
    os.rename(PROJECT + "/app/.env", PROJECT + "/app/env.txt")
    try:
        return read(PROJECT + "/app/env.txt")
    finally:
        undo(lambda: os.rename(PROJECT + "/app/env.txt", PROJECT + "/app/.env"))


def cwd_carried() -> str:
    """Enter the hole's parent, move it, read by a relative name."""
    os.chdir(PROJECT + "/deep/er")
    os.rename(PROJECT + "/deep", PROJECT + "/deep3")
    try:
        return read("secret/key")
    finally:
        undo(lambda: os.rename(PROJECT + "/deep3", PROJECT + "/deep"))


run(
    {
        "move the hole": moved(HOLE, PROJECT + "/opened", "key"),
        "move a file out of the hole": file_out,
        "exchange the hole": exchanged,
        "exchange a file of the hole": file_exchanged,
        "move an ancestor of a hole": moved(PROJECT + "/deep", PROJECT + "/dope", "er/secret/key"),
        "move the parent of a hole": moved(PROJECT + "/deep/er", PROJECT + "/er", "secret/key"),
        "move the parent by descriptor": parent_by_dirfd,
        "move an ancestor from inside": cwd_carried,
        "move the project": moved(PROJECT, ARENA["home"] + "/renamed", "secret/key"),
        "move .ssh into the project": moved(ARENA["home"] + "/.ssh", PROJECT + "/ssh", "id_ed25519"),
        "hook in .git moved aside": git_away,
        "another .git put in place": git_made_elsewhere,
        "hook moved in": hook_moved_in,
        ".env read": lambda: read(PROJECT + "/app/.env"),
        ".env renamed": dotenv,
    }
)
