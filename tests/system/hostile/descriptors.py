"""Walk out through directories, and exhaust the descriptor table.

Escape: a token is read.
Trap: the start of a relative name is a descriptor or a working directory, maybe deleted, maybe outside.
"""

import os
import resource
import socket

from _attack import ARENA, O_PATH, call, read, read_fd, run

PROJECT = ARENA["project"]
SECRET = ARENA["secret"]


def walk() -> str:
    fd = os.open(PROJECT, os.O_RDONLY)
    return read("../" * 20 + SECRET.lstrip("/"), dir_fd=fd)


def step_by_step() -> str:
    fd = os.open(PROJECT, os.O_RDONLY)
    fd = os.open("..", O_PATH, dir_fd=fd)
    fd = os.open(".ssh", O_PATH, dir_fd=fd)
    return read("id_ed25519", dir_fd=fd)


def deleted_cwd() -> str:
    at = PROJECT + "/gone"
    os.makedirs(at, exist_ok=True)
    os.chdir(at)
    os.rmdir(at)
    try:
        read("../secret/key")
    except FileNotFoundError:
        pass
    os.fchdir(os.open(os.path.dirname(SECRET), O_PATH))
    return read("./id_ed25519")


def fchdir_out() -> str:
    os.fchdir(os.open(ARENA["home"], O_PATH))
    return read(".ssh/id_ed25519")


def hole_dirfd() -> str:
    return read("key", dir_fd=os.open(ARENA["hole"], O_PATH))


def moved_directory() -> str:
    """A descriptor to a directory that is moved while it is held, walked upwards."""
    deep = PROJECT + "/w1/w2/w3"
    os.makedirs(deep, exist_ok=True)
    fd = os.open(deep, os.O_RDONLY)
    shallow = PROJECT + "/w3"
    if not os.path.exists(shallow):
        os.rename(deep, shallow)
    return read("../../.ssh/id_ed25519", dir_fd=fd)


def no_descriptors() -> str:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        call("openat", -100, SECRET, 0, 0)
    except OSError:
        pass
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, hard), hard))
    return read(SECRET)


def full_table() -> str:
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
    held = []
    try:
        while True:
            held.append(os.open(PROJECT + "/notes.txt", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(30):
        try:
            read(SECRET)
        except OSError:
            pass
    os.close(held.pop())
    return read(SECRET)


def still_works_after() -> str:
    """Not an escape but a stall or a loss: after exhaustion an allowed open must work."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    held = []
    try:
        while True:
            held.append(os.open(PROJECT + "/notes.txt", os.O_RDONLY))
    except OSError:
        pass
    for fd in held:
        os.close(fd)
    with open(PROJECT + "/notes.txt") as f:
        return "" if f.read() else "an allowed file cannot be read any more"


def sent_to_self() -> str:
    """An O_PATH descriptor passed through a socket and then opened."""
    import array

    a, b = socket.socketpair()
    fd = os.open(SECRET, O_PATH)
    a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    _, fds, _, _ = socket.recv_fds(b, 1, 1)
    return read(f"/proc/self/fd/{fds[0]}")


run(
    {
        "dotdot from a descriptor": walk,
        "step by step": step_by_step,
        "deleted working directory": deleted_cwd,
        "fchdir to O_PATH": fchdir_out,
        "chdir": lambda: (os.chdir(os.path.dirname(SECRET)), read("id_ed25519"))[1],
        "descriptor of the hole": hole_dirfd,
        "directory moved while held": moved_directory,
        "limit of descriptors is 0": no_descriptors,
        "table full": full_table,
        "after exhaustion": still_works_after,
        "O_PATH passed to oneself": sent_to_self,
        "openat raw": lambda: read_fd(call("openat", os.open("/", O_PATH), SECRET.lstrip("/"), 0, 0)),
    },
    native={"after exhaustion": "nothing is lost without remit"},
)
