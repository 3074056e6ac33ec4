"""Change a socket between the supervisor's look at it and its connect, or have it wait where it must not.

Escape: the listener's token comes back; or memory that no message held; or a session that stands still.
Trap: shutdown(2) makes a listening socket closed, a blocking flag turns over, a close lingers, a message without copies is sent
when its sender has put something else there.
"""

import contextlib
import os
import socket
import struct
import sys
import threading
import time

from _attack import ARENA, leak, run

SECONDS = 1.0


def pair(window: int = 0) -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection of the session's own."""
    server, client = socket.socket(), socket.socket()
    if window:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    server.bind(("127.0.0.1", 0))
    server.listen(8)
    client.connect(server.getsockname())
    accepted, _ = server.accept()
    return client, accepted


def shut_listener() -> str:
    """A socket that listens is connected nowhere; shut down, it is a fresh one."""
    sys.setswitchinterval(1e-5)
    end = time.monotonic() + SECONDS
    delay = 0.0
    while time.monotonic() < end:
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        s.listen(1)
        s.settimeout(None)

        def shut(s: socket.socket = s, until: float = time.perf_counter() + 2e-4 + delay) -> None:
            while time.perf_counter() < until:
                pass
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

        delay = (delay + 7e-6) % 4e-4
        other = threading.Thread(target=shut)
        other.start()
        try:
            s.connect(("127.0.0.1", ARENA["tcp"]))
            s.settimeout(1)
            if got := leak(s.recv(4096)):
                return got
        except OSError:
            pass
        finally:
            other.join()
            s.close()
    return ""


def without_copies() -> str:
    """What is sent without a copy is what the sender's memory holds when the receiver has room."""
    client, accepted = pair(window=4096)
    client.setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
    client.setblocking(False)
    filler = sent = 0
    with contextlib.suppress(BlockingIOError):
        while filler < 1 << 18:
            filler += client.send(b"f" * 4096)
            time.sleep(0.001)
    size = 2048
    for _ in range(64):
        data = bytearray(b"m" * size)
        try:
            got = client.sendmsg([data], [], 0x4000000)  # MSG_ZEROCOPY
        except BlockingIOError:
            break
        sent += got
        data[:] = b"n" * size  # natively this is what the receiver will see
        for n in (40, 600, 3000):  # and whoever mediates has used its memory for something else
            client.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
            with contextlib.suppress(OSError):
                os.open(ARENA["project"] + "/" + "x" * min(n, 200), os.O_WRONLY)
    if not sent:
        return ""
    accepted.settimeout(0.5)
    received = b""
    with contextlib.suppress(TimeoutError):
        while len(received) < filler + sent:
            received += accepted.recv(1 << 16)
    other = received[filler:].replace(b"m", b"")
    return f"{len(other)} bytes that were never sent: {other[:40]!r}" if other else ""


def stands_still(act: object) -> str:
    """Say whether the mediation of other calls stops while ``act`` goes on."""
    worst = 0.0
    over = threading.Event()

    def work() -> None:
        act()  # type: ignore[operator]
        over.set()

    threading.Thread(target=work, daemon=True).start()
    end = time.monotonic() + 2
    while time.monotonic() < end and not over.is_set():
        began = time.monotonic()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
        worst = max(worst, time.monotonic() - began)
        time.sleep(0.01)
    return f"nothing was mediated for {worst:.1f} s" if worst > 0.7 else ""


def waits() -> None:
    """A connect to a full queue, begun without waiting and asked for again."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    kept = []
    for _ in range(4):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(server.getsockname())
        kept.append(s)
        time.sleep(0.05)
    kept[-1].setblocking(True)
    with contextlib.suppress(OSError):
        kept[-1].connect(server.getsockname())


def lingers() -> None:
    """Have the mediator's descriptor be the last one of a connection whose peer reads nothing."""
    sys.setswitchinterval(1e-5)
    delay = 0.0
    end = time.monotonic() + 1.9
    while time.monotonic() < end:
        client, _accepted = pair(window=4096)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.send(b"f" * 65536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3))
        fd = client.detach()
        spare = socket.socket(fileno=os.dup(fd))

        def close(fd: int = fd, until: float = time.perf_counter() + 2e-4 + delay) -> None:
            while time.perf_counter() < until:
                pass
            os.close(fd)

        os.close(fd)
        fd = spare.fileno()
        other = threading.Thread(target=close, args=(fd, time.perf_counter() + 2e-4 + delay), daemon=True)
        delay = (delay + 1.1e-5) % 4e-4
        other.start()
        with contextlib.suppress(OSError):
            spare.connect(("127.0.0.1", 9))
        other.join()
        spare.detach()


NATIVELY = "where nobody mediates, nobody waits"
run(
    {
        "a listener that is shut down": shut_listener,
        "a message without copies": without_copies,
        "a connect that waits": lambda: stands_still(waits),
        "a close that lingers": lambda: stands_still(lingers),
    },
    native={
        "a connect that waits": NATIVELY,
        "a close that lingers": NATIVELY,
        "a message without copies": "where the kernel has it for such a socket",
    },
    seconds=6,
    total=16,
)
