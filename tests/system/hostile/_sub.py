"""What an agent in a sub-session tries, to get what the session above may have and it may not.

Told by SUB (JSON): key, a file that the one above may read (Landlock lets it be read) and this one not; victim, one that it may write;
free, a file that both may read; boss, the process above; fd, its descriptor of the key; socket, ticket, agent_fd, abstract, port, path:
what the one above left open. Prints one line for each attempt: ESCAPED or HELD, its name, how.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import time

SUB = json.loads(os.environ["SUB"])
KEY, FREE, VICTIM, BOSS = SUB["key"], SUB["free"], SUB["victim"], SUB["boss"]
ROUNDS = 1500
RTTIME = resource.RLIMIT_RTTIME
libc = ctypes.CDLL(None, use_errno=True)


def content(fd: int) -> str:
    raw = b""
    try:
        raw = os.read(fd, 4096)
    except BlockingIOError:
        pass  # an empty pipe
    finally:
        os.close(fd)
    return "read the key" if b"TOKEN-sub" in raw else ""


def read(path: str) -> str:
    return content(os.open(path, os.O_RDONLY))


def rpc(sock: socket.socket, method: str, **params: object) -> dict:
    sock.sendall(
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"
    )
    raw = b""
    while not raw.endswith(b"\n"):
        got = sock.recv(65536)
        if not got:
            raise OSError("closed")
        raw += got
    answer = json.loads(raw)
    if "error" in answer:
        raise OSError(answer["error"]["message"])
    return answer["result"]


def agent() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.environ["REMIT_SOCKET"])
    return sock


def claim(ticket: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(b"\0remit-claim-" + ticket.encode())


def in_child(act) -> str:
    """Run ``act`` in a fork; returns what it says."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        said = ""
        with contextlib.suppress(BaseException):
            said = act() or ""
        os.write(into, said.encode() + b".")
        os._exit(0)
    os.close(into)
    os.waitpid(pid, 0)
    said = b""
    while chunk := os.read(out, 4096):
        said += chunk
    os.close(out)
    return said.decode().rstrip(".")


def flipped(first: str, second: str, flags: int, judge) -> str:
    """Open a path that another process exchanges all the time, until ``judge`` says something of a descriptor."""
    shared = mmap.mmap(-1, 4096)
    a, b = first.encode() + b"\0", second.encode() + b"\0"
    shared[: len(a)] = a
    flipper = os.fork()
    if not flipper:
        while True:
            shared[: len(b)] = b
            shared[: len(a)] = a
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    try:
        for _ in range(ROUNDS):
            fd = libc.openat(-100, ctypes.c_void_p(address), flags, 0)
            if fd >= 0 and (said := judge(fd)):
                return said
        return ""
    finally:
        os.kill(flipper, signal.SIGKILL)
        os.waitpid(flipper, 0)


def is_victim(fd: int) -> str:
    try:
        there, here = os.stat(VICTIM), os.fstat(fd)
        return (
            "opened the victim for writing"
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
            else ""
        )
    finally:
        os.close(fd)


def plain() -> str:
    return read(KEY)


def by_other_names() -> str:
    for path in (
        f"/proc/self/root{KEY}",
        f"/proc/{BOSS}/root{KEY}",
        f"/proc/{BOSS}/fd/{SUB['fd']}",
        f"/proc/thread-self/root{KEY}",
    ):
        with contextlib.suppress(OSError):
            if said := read(path):
                return f"{said} as {path}"
    return ""


def read_race() -> str:
    return flipped(FREE, KEY, os.O_RDONLY, content)


def write_race() -> str:
    return flipped("/dev/tty", VICTIM, os.O_WRONLY, is_victim) or flipped(
        "/dev/null", VICTIM, os.O_WRONLY, is_victim
    )


def pipe_race() -> str:
    out, _ = os.pipe()
    return flipped(f"/proc/self/fd/{out}", KEY, os.O_RDONLY | os.O_NONBLOCK, content)


def link_race() -> str:
    link = os.environ["TMPDIR"] + "/link"
    os.symlink(FREE, link)
    flipper = os.fork()
    if not flipper:
        with contextlib.suppress(BaseException):
            while True:
                for to in (KEY, FREE):
                    os.symlink(to, link + ".new")
                    os.rename(link + ".new", link)
        os._exit(0)
    try:
        for _ in range(ROUNDS):
            with contextlib.suppress(OSError):
                if said := read(link):
                    return said
        return ""
    finally:
        os.kill(flipper, signal.SIGKILL)
        os.waitpid(flipper, 0)


def new_names() -> str:
    for act in (os.link, os.rename, os.symlink):
        name = f"{os.environ['TMPDIR']}/{act.__name__}"
        with contextlib.suppress(OSError):
            act(KEY, name)
            if said := read(name):
                return f"{said} by {act.__name__}"
    return ""


def truncate() -> str:
    for act in (
        lambda: os.truncate(VICTIM, 0),
        lambda: os.chmod(VICTIM, 0o777),
        lambda: os.unlink(VICTIM),
        lambda: os.utime(VICTIM),
    ):
        with contextlib.suppress(OSError):
            act()
            return "changed the victim"
    return ""


def shed_the_mark() -> str:
    soft, hard = resource.getrlimit(RTTIME)
    for who in (0, os.getpid(), BOSS):
        for limits in ((hard, hard), (soft, soft), (0, hard), (-1, -1)):
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(who, RTTIME, limits)
                return f"set {who} to {limits}"
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(RTTIME, (hard, hard))
        return "setrlimit"
    return ""


def limits_of_the_one_above() -> str:
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(BOSS, resource.RLIMIT_NOFILE, old)
        return "prlimit"
    with contextlib.suppress(OSError):
        os.sched_setaffinity(BOSS, os.sched_getaffinity(BOSS))
        return "affinity"
    return ""


def signal_the_one_above() -> str:
    with contextlib.suppress(OSError):
        os.kill(BOSS, 0)
        return "kill"
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(os.pidfd_open(BOSS), 0)
        return "pidfd_send_signal"
    return ""


def look_into_the_one_above() -> str:
    for name in ("environ", "mem", "maps", "auxv", "fdinfo/0", "cwd/.", "task"):
        with contextlib.suppress(OSError):
            if name == "task":
                continue
            os.close(os.open(f"/proc/{BOSS}/{name}", os.O_RDONLY))
            return name
    return ""


def act_through_the_one_above() -> str:
    """The one above serves whoever reaches it: at an abstract name, at a path, at a port."""
    for family, where in (
        (socket.AF_UNIX, "\0" + SUB["abstract"]), (socket.AF_UNIX, SUB["path"]), (socket.AF_INET, ("127.0.0.1", SUB["port"])),
    ):  # fmt: skip
        with contextlib.suppress(OSError), socket.socket(family) as sock:
            sock.settimeout(5)
            sock.connect(where)
            sock.sendall(b"key please\n")
            if b"TOKEN-sub" in sock.recv(4096):
                return f"served at {where!r}"
    return ""


def descendants() -> str:
    def deep() -> str:
        os.setsid()
        return in_child(lambda: in_child(plain))

    found: list[str] = []

    def thread() -> None:
        with contextlib.suppress(OSError):
            found.append(plain())

    one = threading.Thread(target=thread)
    one.start()
    one.join()
    out, into = os.pipe()
    pid = os.posix_spawn(
        "/bin/cat", ["cat", KEY], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, into, 1)]
    )
    os.close(into)
    os.waitpid(pid, 0)
    spawned = os.read(out, 4096)
    orphan, into = os.pipe()
    if not os.fork():
        if not os.fork():
            os.setsid()
            time.sleep(0.1)  # its parent is gone: somebody else's child now
            said = ""
            with contextlib.suppress(OSError):
                said = plain()
            os.write(into, said.encode())
        os._exit(0)
    os.wait()
    os.close(into)
    return (
        in_child(deep)
        or "".join(found)
        or ("spawned" if b"TOKEN-sub" in spawned else "")
        or os.read(orphan, 99).decode()
    )


def claim_what_is_wider() -> str:
    """A ticket of the one above, for a sub-session as wide as that, which it let be seen."""
    return in_child(lambda: claim(SUB["ticket"]) or "claimed, and " + read(KEY))


def delegate_as_the_one_above() -> str:
    """On its own connection to remitd, which was left open."""
    sock = socket.socket(fileno=os.dup(SUB["agent_fd"]))
    sock.settimeout(10)
    given = rpc(sock, "delegate", argv=["x"], agent="probe-wide")
    return in_child(lambda: claim(given["ticket"]) or "claimed")


def delegate_wider() -> str:
    """By right: it is allowed, and gives nothing."""

    def inner() -> str:
        policy = 'version = 1\n[agent.probe-x]\nroles = ["x"]\n[role.x.files]\nread = { allow = ["/**"] }\n'
        with agent() as sock:
            given = rpc(sock, "delegate", argv=["x"], agent="probe-x", policy=policy)
        if not given["agent"].startswith("probe-x of probe-helper of "):
            return "its chain is " + given["agent"]
        claim(given["ticket"])
        with contextlib.suppress(OSError):
            if said := read(KEY):
                return said
        with contextlib.suppress(OSError), agent() as sock:
            rpc(sock, "delegate", argv=["x"], agent="probe-y")
            return "delegated a third time"
        with contextlib.suppress(OSError):
            claim(given["ticket"])
            return "claimed twice"
        return ""

    return in_child(inner)


def be_taken_for_another() -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(b"\0remit-sub-" + SUB["other"].encode() + b"-x")
        with contextlib.suppress(OSError):
            sock.connect(os.environ["REMIT_SOCKET"])
            return "connected under a chosen name: " + str(rpc(sock, "whoami"))
    with agent() as sock:
        me = rpc(sock, "whoami")
    return "" if me["session"] == os.environ["REMIT_SESSION"] and me["parent"] else f"is {me}"


def flood() -> str:
    """More than may be at once: some are refused, none is half."""
    given = []
    with agent() as sock, contextlib.suppress(OSError):
        for _ in range(40):
            given.append(rpc(sock, "delegate", argv=["x"], agent="probe-z"))
    if len(given) >= 20:
        return f"{len(given)} at once"
    for one in given:
        if said := in_child(lambda one=one: claim(one["ticket"]) or read(KEY)):
            return said
    return ""


ATTEMPTS = (
    plain, by_other_names, read_race, write_race, pipe_race, link_race, new_names, truncate, shed_the_mark, limits_of_the_one_above,
    signal_the_one_above, look_into_the_one_above, act_through_the_one_above, descendants, claim_what_is_wider,
    delegate_as_the_one_above, delegate_wider, be_taken_for_another, flood,
)  # fmt: skip

for attempt in ATTEMPTS:
    if len(sys.argv) > 1 and attempt.__name__ not in sys.argv[1:]:
        continue
    try:
        got = attempt()
        print("ESCAPED" if got else "HELD", attempt.__name__, got or "", flush=True)
    except Exception as e:
        print("HELD", attempt.__name__, type(e).__name__, e, flush=True)
