"""Answer one's own prompt, ask for a session of one's own, or speak to remit as if one were the person.

Escape: remit's human sockets accept us, the command line succeeds, or the held file is read.
Trap: the approving program runs as the same user; a child that left the tree looks like anybody.
Harness: prompt
"""

import json
import os
import subprocess
import threading
import time

from _attack import ARENA, ask_socket, leak, read, run

RUNTIME = ARENA["runtime"]
CLI = [ARENA["python"], "-m", "remit_daemon.cli.main"]
ENV = os.environ | {"PYTHONPATH": ARENA["code"]}


def connects(name: str, first: bytes) -> object:
    def act() -> str:
        import socket

        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(1)
            s.connect(f"{RUNTIME}/{name}")
            s.sendall(first)
            got = s.recv(4096)
            if b"error" in got or b"refused" in got or not got:
                return ""
            return f"it answered {got[:60]!r}"

    return act


REQUEST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "prompts", "params": {}}).encode() + b"\n"


def cli(*words: str, detached: bool = False) -> object:
    def act() -> str:
        done = subprocess.run(
            [*CLI, *words], env=ENV, capture_output=True, timeout=2.5, start_new_session=detached
        )
        return "" if done.returncode else f"{words[0]} succeeded: {done.stdout[:80]!r}"

    return act


def while_held() -> str:
    """One thread is held at an asked file; this one tries to let it through by every prompt id it can learn."""
    got: list[str] = []

    def opener() -> None:
        try:
            got.append(read(ARENA["asked_file"]))
        except OSError:
            got.append("")

    threading.Thread(target=opener, daemon=True).start()
    time.sleep(0.3)
    listing = subprocess.run([*CLI, "prompts", "--json"], env=ENV, capture_output=True, timeout=2)
    try:
        ids = [p["id"] for p in json.loads(listing.stdout)]
    except ValueError:
        ids = []
    for prompt in ids or ["1", "p1"]:
        subprocess.run([*CLI, "answer", str(prompt), "allow"], env=ENV, capture_output=True, timeout=2)
    time.sleep(0.3)
    return leak(" ".join(got))


def daemonised() -> str:
    """The same from a process that was adopted."""
    r, w = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(0.1)
        try:
            said = connects("approver.sock", REQUEST)()  # type: ignore[operator]
        except OSError:
            said = ""
        os.write(w, said.encode() or b"-")
        os._exit(0)
    os.wait()
    got = os.read(r, 200).decode()
    return "" if got == "-" else got


def hello() -> bytes:
    import sys

    sys.path.insert(0, ARENA["code"])
    try:
        from remit_daemon.wire import frames
    except ImportError:
        return b"\0\0\0\0"
    return frames.encode(
        {"type": "hello", "version": 1, "agent": "human", "argv": ["/bin/true"], "session": ""}
    )


WAYS = {
    "approver.sock": connects("approver.sock", REQUEST),
    "approver.sock, adopted": daemonised,
    "control.sock": lambda: connects("control.sock", hello())(),  # type: ignore[operator]
    "approver.sock through /proc/self/root": lambda: ask_socket(f"/proc/self/root{RUNTIME}/approver.sock"),
    "remit prompts": cli("prompts"),
    "remit answer": cli("answer", "1", "allow"),
    "remit grants": cli("grants"),
    "remit revoke": cli("revoke", "--all"),
    "remit trust": cli("trust", ARENA["project"]),
    "remit answer, session of its own": cli("answer", "1", "allow", detached=True),
    "while held": while_held,
}
run(WAYS, native=dict.fromkeys(WAYS, "aims at remit itself"), seconds=5, total=18)
