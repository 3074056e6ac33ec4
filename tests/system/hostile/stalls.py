"""Make the supervisor wait, so that every other act of the session waits too.

Escape: an ordinary open does not come back in time, or an allowed thing is lost.
Trap: opening a FIFO or a terminal on behalf of the agent blocks the single loop.
"""

import os
import socket
import threading
import time

from _attack import ARENA, run

PROJECT = ARENA["project"]
SECONDS = 1.0


def meanwhile(block: object) -> object:
    def act() -> str:
        threading.Thread(target=block, daemon=True).start()  # type: ignore[arg-type]
        time.sleep(0.1)
        done = threading.Event()

        def ordinary() -> None:
            for _ in range(20):
                os.close(os.open(PROJECT + "/notes.txt", os.O_RDONLY))
                os.close(os.open(PROJECT + "/made-meanwhile", os.O_CREAT | os.O_WRONLY))
                os.unlink(PROJECT + "/made-meanwhile")
            done.set()

        threading.Thread(target=ordinary, daemon=True).start()
        return "" if done.wait(SECONDS) else f"an ordinary open took more than {SECONDS} s"

    return act


def fifo(name: str, flags: int) -> object:
    path = f"{PROJECT}/{name}{os.getpid()}"

    def block() -> None:
        if not os.path.exists(path):
            os.mkfifo(path)
        os.open(path, flags)

    return meanwhile(block)


def quietly(act: object) -> object:
    def go() -> None:
        try:
            act()  # type: ignore[operator]
        except OSError:
            pass

    return go


def exec_fifo() -> None:
    path = f"{PROJECT}/xfifo{os.getpid()}"
    os.mkfifo(path, 0o700)
    if os.fork() == 0:
        os.execv(path, [path])


def full_socket() -> None:
    path = f"{PROJECT}/full{os.getpid()}"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(0)
    for _ in range(4):
        socket.socket(socket.AF_UNIX).connect(path)


def looping_links() -> None:
    for n in range(2):
        os.symlink(f"loop{os.getpid()}.{1 - n}", f"{PROJECT}/loop{os.getpid()}.{n}")
    for _ in range(200):
        try:
            os.open(f"{PROJECT}/loop{os.getpid()}.0", os.O_CREAT | os.O_WRONLY)
        except OSError:
            pass


WAYS = {
    "FIFO for reading": fifo("r", os.O_RDONLY),
    "FIFO for writing": fifo("w", os.O_WRONLY),
    "FIFO by O_CREAT": fifo("c", os.O_CREAT | os.O_RDONLY),
    "exec of a FIFO": meanwhile(quietly(exec_fifo)),
    "/dev/tty": meanwhile(quietly(lambda: os.open("/dev/tty", os.O_RDONLY))),
    "/dev/ptmx": meanwhile(quietly(lambda: os.open("/dev/ptmx", os.O_RDWR))),
    "socket with a full queue": meanwhile(quietly(full_socket)),
    "links in a circle": meanwhile(quietly(looping_links)),
}
run(WAYS, native=dict.fromkeys(WAYS, "there is no loop to stall"))
