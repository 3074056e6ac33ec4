"""An agent with a sub-session that it does not trust: leaves open what one may leave open, starts it, and waits.

argv: the command line of the sub-session. SUB (JSON) is completed and handed on.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

sub = json.loads(os.environ["SUB"])
held = os.open(sub["key"], os.O_RDONLY)
victim = os.environ["TMPDIR"] + "/victim"
with open(victim, "w") as f:
    f.write("as it was\n")


def rpc(sock: socket.socket, method: str, **params: object) -> dict:
    sock.sendall(
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"
    )
    return json.loads(sock.makefile("rb").readline())["result"]


agent = socket.socket(socket.AF_UNIX)
agent.connect(os.environ["REMIT_SOCKET"])
wide = rpc(agent, "delegate", argv=["x"], agent="probe-wide")


def serve(sock: socket.socket) -> None:
    sock.listen()
    while True:
        peer, _ = sock.accept()
        with peer, contextlib.suppress(OSError):
            peer.recv(100)
            peer.sendall(os.pread(held, 4096, 0))


services = []
for family, where in (
    (socket.AF_UNIX, "\0boss-" + os.environ["REMIT_SESSION"]), (socket.AF_UNIX, os.environ["TMPDIR"] + "/served"),
    (socket.AF_INET, ("127.0.0.1", 0)),
):  # fmt: skip
    services.append(socket.socket(family))
    services[-1].bind(where)
    threading.Thread(target=serve, args=(services[-1],), daemon=True).start()

sub |= {
    "boss": os.getpid(), "fd": held, "victim": victim, "ticket": wide["ticket"], "other": wide["session"],
    "agent_fd": agent.fileno(), "abstract": "boss-" + os.environ["REMIT_SESSION"], "path": os.environ["TMPDIR"] + "/served",
    "port": services[-1].getsockname()[1],
}  # fmt: skip
done = subprocess.run(
    sys.argv[1:], env=os.environ | {"SUB": json.dumps(sub)}, pass_fds=(agent.fileno(),), check=False
)
with open(victim) as f:
    print("VICTIM", f.read().strip(), flush=True)
sys.exit(done.returncode)
