"""Reach the secret from a descendant that might have lost its mediation.

Escape: any of them reads a token.
Trap: double-forked daemons, new sessions, many processes at once, a flood that drowns the loop.
"""

import os
import signal
import threading
import time

from _attack import ARENA, call, leak, read, run

SECRET = ARENA["secret"]
HOLE = ARENA["hole_file"]


def daemonised() -> str:
    r, w = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(0.2)
        try:
            got = read(SECRET)
        except OSError:
            got = ""
        os.write(w, got.encode() or b"-")
        os._exit(0)
    os.wait()
    return leak(os.read(r, 200))


def many() -> str:
    """200 processes in all, each with one attempt."""
    r, w = os.pipe()
    for n in range(200):
        if os.fork() == 0:
            try:
                os.write(w, read(SECRET if n % 2 else HOLE).encode())
            except OSError:
                pass
            os._exit(0)
        if n % 20 == 19:
            for _ in range(20):
                os.wait()
    os.close(w)
    return leak(os.read(r, 1 << 16))


def threads() -> str:
    got: list[str] = []

    def attempt() -> None:
        for _ in range(20):
            try:
                got.append(read(SECRET))
            except OSError:
                pass

    all_of_them = [threading.Thread(target=attempt) for _ in range(8)]
    for t in all_of_them:
        t.start()
    for t in all_of_them:
        t.join()
    return next(filter(None, got), "")


def flood() -> str:
    """Four threads open as fast as they can for two seconds while a fifth tries the secret."""
    end = time.monotonic() + 2
    got: list[str] = []

    def noise() -> None:
        while time.monotonic() < end:
            try:
                os.close(os.open(ARENA["project"] + "/notes.txt", os.O_RDONLY))
                os.open("/nonexistent", os.O_RDONLY)
            except OSError:
                pass

    def attempt() -> None:
        while time.monotonic() < end and not any(got):
            try:
                got.append(read(SECRET))
            except OSError:
                pass

    all_of_them = [threading.Thread(target=f) for f in (noise, noise, noise, noise, attempt)]
    for t in all_of_them:
        t.start()
    for t in all_of_them:
        t.join()
    return next(filter(None, got), "")


def killed_while_asking() -> str:
    """Children that die in the middle of a call must leave the loop sound."""
    for _ in range(60):
        pid = os.fork()
        if pid == 0:
            while True:
                try:
                    read(SECRET)
                except OSError:
                    pass
        time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return read(SECRET)


def threads_and_exec() -> str:
    """A thread that is not the first execs: the others vanish and its number changes."""
    r, w = os.pipe()
    if os.fork() == 0:
        os.dup2(w, 1)

        def go() -> None:
            os.execv("/bin/cat", ["cat", SECRET])

        threading.Thread(target=go).start()
        time.sleep(2)
        os._exit(1)
    os.close(w)
    return leak(os.read(r, 4096))


def sibling() -> str:
    """A child given to our parent's parent: reading is still mediated, and its end must confuse nobody."""
    r, w = os.pipe()
    pid = call("clone", 0x8000, 0, 0, 0, 0)  # CLONE_PARENT
    if pid == 0:
        try:
            os.write(w, read(SECRET).encode())
        except OSError:
            os.write(w, b"-")
        os._exit(42)
    return leak(os.read(r, 200))


run(
    {
        "daemon": daemonised,
        "two hundred processes": many,
        "threads": threads,
        "flood": flood,
        "killed while asking": killed_while_asking,
        "exec from a thread": threads_and_exec,
        "clone with CLONE_PARENT": sibling,
    },
    seconds=4,
    total=15,
)
