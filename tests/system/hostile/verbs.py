"""Have remit's own verbs do what the session may not: remitd is no confined program, and it hands over descriptors.

Escape: a descriptor from agent.sock shows a secret or lets a protected file be changed, or remitd tells us "allow" for one.
Trap: a checker that trusts the path as written, opens what the pin is not, or knows less than the session's supervisor.
"""

import json
import os
import socket
import threading
import time

from _attack import ARENA, changed, leak, run

AGENT = os.environ.get("REMIT_SOCKET") or ARENA["runtime"] + "/agent.sock"
PROJECT = ARENA["project"]
TRYING = 2.0  # seconds of a race: some two hundred opens on a machine that is not busy


def say(method: str, **params: object) -> tuple[dict[str, object], list[int]]:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1.5)
        s.connect(AGENT)
        s.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
        line, fds, _, _ = socket.recv_fds(s, 1 << 16, 4)
    return json.loads(line or b"{}"), fds


def opened(path: str, mode: str = "read") -> str:
    """Return what a descriptor of ``path`` shows, or that one was given at all."""
    _, fds = say("open", path=path, mode=mode, wait=0)
    try:
        shown = [
            leak(os.pread(fd, 1 << 16, 0)) if mode == "read" else f"a descriptor to {mode}" for fd in fds
        ]
        return "".join(shown)
    finally:
        for fd in fds:
            os.close(fd)


def reading(path: str) -> object:
    return lambda: opened(path)


def writing(path: str, mode: str = "write") -> object:
    return lambda: changed(path, lambda: opened(path, mode)) or opened(path, mode)


def linked() -> str:
    """A name in the project that leads to the secret, in each way that a link can be written."""
    for number, target in enumerate((ARENA["secret"], "/proc/self/root" + ARENA["secret"], "secret/key")):
        link = f"{PROJECT}/verbs-link{number}"
        os.symlink(target, link)
        got = opened(link)
        os.unlink(link)
        if got:
            return got
    return ""


def swapped() -> str:
    """The link is exchanged while remitd decides."""
    good, bad, moving = PROJECT + "/notes.txt", ARENA["secret"], PROJECT + "/verbs-moving"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for target in (good, bad):
                os.symlink(target, moving + ".new")
                os.rename(moving + ".new", moving)

    os.symlink(good, moving)
    thread = threading.Thread(target=swap, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + TRYING
        while time.monotonic() < end:
            got = opened(moving)
            if got:
                return got
        return ""
    finally:
        stop.set()
        thread.join(1)
        os.unlink(moving)


def told_yes(method: str, op: str, resource: str) -> object:
    def act() -> str:
        answer, _ = say(method, op=op, resource=resource, **({"wait": 0} if method == "request" else {}))
        result = answer.get("result")
        return str(result) if isinstance(result, dict) and result.get("verdict") == "allow" else ""

    return act


def another_name() -> str:
    """Be somebody else, or outside: a name that others' rules are about."""
    for params in ({"agent": "human"}, {"pid": os.getppid()}, {"agent": "claude", "project": "/"}):
        answer, _ = say("hello", **params)
        if "result" in answer:
            return str(answer)
    who, _ = say("whoami")
    result = who.get("result")
    return "" if isinstance(result, dict) and result.get("confined") is True else str(who)


def network() -> str:
    for method, params in (
        ("connect", {"host": "127.0.0.1", "port": ARENA.get("tcp", 1)}),
        ("call", {"name": "org.freedesktop.systemd1", "path": "/", "interface": "a.b", "member": "C"}),
    ):
        answer, fds = say(method, **params)
        if "result" in answer or fds:
            return str(answer)
    return ""


def stated() -> str:
    """A purpose is no answer."""
    say("intend", purpose="the person has allowed this", resources=[ARENA["secret"]])
    return opened(ARENA["secret"])


WAYS = {
    "open the key": reading(ARENA["secret"]),
    "open a hole": reading(ARENA["hole_file"]),
    "open a neighbour": reading(ARENA["neighbour"]),
    "open what is asked": reading(ARENA["asked_file"]),
    "open in the shared directory": reading(ARENA["tmp_file"]),
    "open a link in the shared directory": reading(ARENA["tmp_link"]),
    "open by another root": reading("/proc/self/root" + ARENA["secret"]),
    "open by a parent": reading(PROJECT + "/../.ssh/id_ed25519"),
    "open another's environment": reading(f"/proc/{os.getppid()}/environ"),
    "open links": linked,
    "open a moving link": swapped,
    "open remit's store": writing(ARENA["state"] + "/store.db", "readwrite"),
    "open remit's policy": writing(ARENA["config"] + "/policy.d/arena.toml"),
    "make a policy": writing(ARENA["config"] + "/policy.d/zz.toml", "create"),
    "make a hook": writing(ARENA["hooks"] + "/pre-commit", "create"),
    "write what may be read": writing(ARENA["readonly_file"]),
    "may I read the key": told_yes("request", "read", ARENA["secret"]),
    "is the key readable": told_yes("check", "read", ARENA["secret"]),
    "another name": another_name,
    "connect and call": network,
    "a purpose": stated,
}
run(WAYS, native=dict.fromkeys(WAYS, "aims at remit itself"), seconds=4, total=18)
