"""The real daemon's three sockets, where somebody else writes on a connection that was let in."""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from collections.abc import Callable

import pytest

from fakes.machine import Machine, until
from fakes.supervisor import FakePerson
from remit_daemon.peers import mark
from remit_daemon.wire.frames import Reader, encode

WHOAMI = b'{"jsonrpc":"2.0","id":1,"method":"whoami","params":{}}\n'


class Process:
    """A process that carries ``tag`` (0: none), does ``what`` and then stands still."""

    def __init__(self, tag: int, what: Callable[[], object]) -> None:
        ready, told = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                if tag:
                    resource.setrlimit(resource.RLIMIT_RTTIME, (tag, resource.RLIM_INFINITY))
                what()
                os.write(told, b"x")
                time.sleep(60)
            finally:
                os._exit(1)
        os.close(told)
        assert os.read(ready, 1) == b"x"
        os.close(ready)

    def end(self) -> None:
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


def beside(tag: int, what: Callable[[], object]) -> Callable[[], None]:
    return Process(tag, what).end


def test_a_child_on_the_persons_connection_is_refused(machine: Machine) -> None:
    person = machine.person()
    assert person.call("prompts") == []
    end = beside(0, lambda: person.sock.sendall(b'{"jsonrpc":"2.0","id":7,"method":"prompts"}\n'))
    error = person.next()["error"]
    assert "on the connection of process" in error["message"]
    with pytest.raises(EOFError):
        person.next()
    end()


def test_a_session_cannot_answer_on_a_connection_that_it_was_handed(machine: Machine) -> None:
    sup = machine.supervisor()
    sup.connect()
    person = machine.person()
    sup.ask("/srv/thing")
    prompt = sup.read()["prompt"]
    request = {"id": 1, "method": "answer", "params": {"id": prompt, "verdict": "allow"}}
    end = beside(sup.tag, lambda: person.sock.sendall(json.dumps(request).encode() + b"\n"))
    assert "on the connection of process" in person.next()["error"]["message"]
    assert machine.person().call("prompt", id=prompt)["state"] == "open"
    end()


def test_a_child_on_a_supervisors_connection_ends_it(machine: Machine) -> None:
    sup = machine.supervisor()
    sup.connect()
    frame = {
        "type": "ask", "seq": 1, "ops": ["read"], "path": "/srv/x", "path2": "", "pid": 1, "proc": "1", "exe": "/x",
        "comm": "x", "argv": [], "source": "", "count": 1,
    }  # fmt: skip
    end = beside(0, lambda: sup.raw(encode(frame)))
    with pytest.raises(EOFError):
        sup.read()
    assert machine.person().call("prompts") == []
    until(lambda: "writes on the connection" in machine.log(), "the daemon says why")
    assert sup.connect()["type"] == "welcome"  # the session goes on
    end()


def test_a_hello_that_a_child_writes_is_refused_with_words(machine: Machine) -> None:
    sup = machine.supervisor()
    sup.sock = socket.socket(socket.AF_UNIX)
    sup.sock.connect(machine.paths.control)
    end = beside(0, lambda: sup.raw(encode(sup.first())))
    sup.reader, sup.queue = Reader(), []
    answer = sup.read()
    assert (answer["type"], "on the connection of process" in answer["error"]) == ("refused", True)
    end()


@pytest.mark.parametrize("who", ["another session", "nobody's"])
def test_on_a_sessions_connection_only_its_processes_are_heard(machine: Machine, who: str) -> None:
    sup = machine.supervisor()
    sup.connect()
    link = FakePerson(machine.paths.agent)  # we are its supervisor, which made the connection
    machine.open.append(link)
    end = beside(sup.tag, lambda: link.sock.sendall(WHOAMI))
    assert link.next()["result"]["session"] == sup.session
    end()
    end = beside(mark.new_tag() if who == "another session" else 0, lambda: link.sock.sendall(WHOAMI))
    assert "is not inside session" in link.next()["error"]["message"]
    with pytest.raises(EOFError):
        link.next()
    end()


def test_a_writer_that_ended_before_it_was_read_is_not_heard(machine: Machine) -> None:
    sup = machine.supervisor()
    sup.connect()
    assert machine.process is not None
    os.kill(machine.process.pid, 19)
    try:
        link = FakePerson(machine.paths.agent)
        machine.open.append(link)
        beside(sup.tag, lambda: link.sock.sendall(WHOAMI))()
    finally:
        os.kill(machine.process.pid, 18)
    assert "gone" in link.next()["error"]["message"]


def test_a_peer_that_ended_before_it_was_accepted(machine: Machine) -> None:
    assert machine.process is not None
    os.kill(machine.process.pid, 19)
    try:

        def connect() -> None:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(machine.paths.approver)
            sock.sendall(b'{"id":1,"method":"reload"}\n')
            kept.append(sock)

        kept: list[socket.socket] = []
        beside(0, connect)()
    finally:
        os.kill(machine.process.pid, 18)
    until(lambda: "is gone" in machine.log(), "it is refused")
    assert [r for r in machine.person().call("log") if r["op"] == "reload"] == []


def test_the_status_says_how_well_writers_are_told(machine: Machine) -> None:
    assert machine.person().call("status")["senders"] == "pidfd"
