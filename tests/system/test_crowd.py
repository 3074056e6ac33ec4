"""A thousand clients at once, and one that takes all it can get: the others, and the person, come in."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fakes.machine import Machine
from remit_client import Remit, RemitError
from remit_daemon.runtime.program import INSIDE, OUTSIDE, PERSON
from remit_daemon.wire.rpc import BUSY

CLIENTS, PROCESSES = 1000, 8
# Opens connections, says how many answered a question while all are open, and keeps them until its input ends.
CROWD = """
import json, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
path, count = sys.argv[1], int(sys.argv[2])
socks = []
for _ in range(count):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.settimeout(30)
    socks.append(s)
question = {"jsonrpc": "2.0", "id": 1, "method": "check", "params": {"op": "read", "resource": "/etc/passwd"}}
for s in socks:
    try:
        s.sendall(json.dumps(question).encode() + b"\\n")
    except OSError:
        pass
answers = {"told": 0, "busy": 0, "other": 0}
for s in socks:
    try:
        line = s.makefile("rb").readline()
        found = json.loads(line)
        answers["told" if "result" in found else "busy" if found["error"]["code"] == int(sys.argv[3]) else "other"] += 1
    except (OSError, ValueError):
        answers["other"] += 1
print(json.dumps(answers), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def machine(tmp_path: object) -> Iterator[Machine]:
    found = Machine(str(tmp_path))
    found.start()
    yield found
    found.stop()


def crowd(path: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CROWD, path, str(count), str(BUSY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip


def told(process: subprocess.Popen[bytes]) -> dict[str, int]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def end(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.communicate(timeout=20)


def test_a_thousand_clients_are_served_at_once(machine: Machine) -> None:
    crowds = [crowd(machine.paths.agent, CLIENTS // PROCESSES) for _ in range(PROCESSES)]
    try:
        found = [told(c) for c in crowds]
        assert found == [{"told": CLIENTS // PROCESSES, "busy": 0, "other": 0}] * PROCESSES
        assert machine.process is not None
        assert len(os.listdir(f"/proc/{machine.process.pid}/fd")) >= 2 * CLIENTS
        assert len(machine.person().call("sessions")) == PROCESSES
    finally:
        end(*crowds)


def test_one_process_does_not_keep_the_others_out(machine: Machine) -> None:
    greedy = crowd(machine.paths.agent, OUTSIDE[1] + 50)
    try:
        found = told(greedy)
        assert found == {"told": OUTSIDE[1], "busy": 50, "other": 0}
        with Remit(machine.paths.agent) as remit:
            assert remit.check("read", "/etc/passwd")
        assert machine.person().call("status")["sessions"]
    finally:
        end(greedy)
    with Remit(machine.paths.agent) as remit:
        assert remit.check("read", "/etc/passwd"), "places come back"


def test_the_person_gets_in_past_a_program_that_holds_the_persons_socket(machine: Machine) -> None:
    greedy = crowd(machine.paths.approver, PERSON[1] + 5)
    try:
        assert told(greedy)["busy"] == 5
        assert machine.person().call("status")["version"]
    finally:
        end(greedy)


def test_a_session_has_so_many_and_the_next_comes_in(machine: Machine) -> None:
    first, second = machine.supervisor(), machine.supervisor()
    first.connect()
    held = []
    try:
        for _ in range(
            INSIDE[1]
        ):  # this process is the sessions' supervisor, so it connects for the first of them
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].connect(machine.paths.agent)
        with pytest.raises(RemitError) as no, Remit(machine.paths.agent) as more:
            more.whoami()
        assert no.value.code == BUSY
        outside = crowd(machine.paths.agent, 1)
        assert told(outside)["busy"] == 0
        end(outside)
        assert second.connect()["type"] == "welcome", "supervisors have places of their own"
    finally:
        for one in held:
            one.close()


def test_a_line_without_end_is_not_kept(machine: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(machine.paths.agent)
        s.settimeout(10)
        try:
            for _ in range(40):
                s.sendall(b"[" * (1 << 16))
        except OSError:
            pass
        assert b"longer than" in s.recv(4096)
