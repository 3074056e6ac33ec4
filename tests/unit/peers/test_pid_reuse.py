"""A process number that is given again at once: forced, in a process namespace of our own, where ns_last_pid is ours to write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
UNSHARE = ["unshare", "--user", "--map-current-user", "--keep-caps", "--pid", "--fork", "--mount-proc"]

# A connects; A ends; B gets A's number and writes on A's connection, whose socket both have from their parent.
ATTACK = """
import json, os, socket, sys, tempfile
sys.path[:0] = sys.argv[1:]
from remit_daemon.peers import mark, senders
from remit_daemon.peers.process import PeerError, hold, peer_of
from remit_daemon.peers.senders import Senders

def started_as(number, what):
    with open("/proc/sys/kernel/ns_last_pid", "w") as f:
        f.write(str(number - 1))
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        what()
        os.write(told, b"x")
        os.read(os.pipe()[0], 1)
    os.close(told)
    assert os.read(ready, 1) == b"x" and pid == number
    os.close(ready)
    return mark.stat_of(pid)[2]

def end(pid):
    os.kill(pid, 9)
    os.waitpid(pid, 0)

found = {"tries": 0, "same tick": 0, "taken for A": 0, "held by A's identity": 0}
path = tempfile.mkdtemp() + "/s"
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
senders.ask(listener)
listener.listen()
for n in range(200):
    number = 5000 + n
    wire = socket.socket(socket.AF_UNIX)
    was = started_as(number, lambda: wire.connect(path))
    accepted, _ = listener.accept()
    a = peer_of(accepted)
    reading = Senders(accepted, a)
    if n % 2:  # the older kernel's rung: the number alone
        accepted.setsockopt(socket.SOL_SOCKET, 76, 0)
        reading._rung = senders.PID
    end(number)
    now = started_as(number, lambda: wire.send(b"forged"))
    found["tries"] += 1
    found["same tick"] += was == now
    data, writer = reading.receive(100)
    assert data == b"forged" and writer.pid == number
    found["taken for A"] += writer is a or writer.identity == a.identity
    again = hold(number, a.identity)
    found["held by A's identity"] += again is not None
    end(number)
    reading.close()
    a.close()
    accepted.close()
    wire.close()
print(json.dumps(found))
"""


def test_a_number_that_was_given_again_is_another_process() -> None:
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives ordinary users no namespaces: numbers cannot be forced")
    places = [str(ROOT / "daemon"), str(ROOT / "policy")]
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", ATTACK, *places], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tries"] == 200
    assert found["same tick"] > 0, "pid and start time were never the same: the attack was not made"
    assert (found["taken for A"], found["held by A's identity"]) == (0, 0)
