"""The verbs over agent.sock, through the real daemon and the client that other programs use."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fakes.machine import Machine, until
from remit_client import Denied, NoDaemon, Remit, RemitError
from remit_client.client import address
from remit_daemon.wire.rpc import BUSY, INVALID_PARAMS, REFUSED

POLICY = """
version = 1
[agent.tool]
match = { name = "tool*" }
roles = ["tool"]
[role.tool.files]
read = { allow = ["ROOT/project/**"], deny = ["ROOT/project/secret/**", "ROOT/project/link"], ask = ["ROOT/asked/**"] }
write = { allow = ["ROOT/project/**"], deny = ["ROOT/project/secret/**", "ROOT/project/link"] }
[role.tool.net]
connect = { allow = ["ok.example:443", "127.0.0.1", "localhost", "here.example"], deny = ["no.example"] }
"""


@pytest.fixture
def ready(machine: Machine) -> Machine:
    machine.policy(POLICY.replace("ROOT", machine.root))
    machine.person().call("reload")
    for place in ("project/secret", "asked"):
        os.makedirs(f"{machine.root}/{place}")
    for place in ("project/a.txt", "project/secret/key", "asked/file"):
        with open(f"{machine.root}/{place}", "w") as f:
            f.write(place)
    return machine


def client(machine: Machine, **more: Any) -> Remit:
    found = Remit(machine.paths.agent, **({"agent": "tool"} | more))
    machine.open.append(found)
    return found


def answered(machine: Machine, ask: Callable[[], Any], verdict: str, **how: Any) -> Any:
    """Return what ``ask`` returns when the person answers its question with ``verdict``."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(ask())
        except RemitError as e:
            found.append(e)

    person = machine.person()
    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: person.call("prompts"), "the question is there")
    (prompt,) = person.call("prompts")
    person.call("answer", id=prompt["id"], verdict=verdict, **how)
    thread.join(10)
    return prompt, found[0]


def test_a_program_outside_is_a_session_that_is_not_confined(ready: Machine) -> None:
    remit, person = client(ready), ready.person()
    me = remit.whoami()
    assert (me["agent"], me["confined"], me["assurance"] in ("L0", "L1", "L2")) == ("tool", False, True)
    (session,) = person.call("sessions")
    assert (session["id"], session["confined"], session["pid"]) == (me["session"], False, os.getpid())
    assert client(ready).whoami()["session"] == me["session"], "one process, one session"
    with pytest.raises(RemitError, match="is tool already"):
        client(ready, agent="other")
    (row,) = person.call("log", op="session")
    assert "unconfined" in row["note"]
    assert person.call("who", pid=os.getpid())["agent"] == "tool", "by its own word"


def test_a_check_asks_nobody_and_records_nothing(ready: Machine) -> None:
    remit, person = client(ready), ready.person()
    rows = person.call("status")["ledger"]["rows"]
    project = ready.root + "/project"
    for op, resource, verdict in (
        ("read", project + "/a.txt", "allow"),
        ("read", project + "/secret/key", "deny"),
        ("read", project + "/secret/../a.txt", "allow"),
        ("read", ready.root + "/asked/file", "ask"),
        ("read", project + "/none/at/all", "allow"),
        ("read", project + "/secret/none/at/all", "deny"),
        ("connect", "ok.example:443", "allow"),
        ("connect", "no.example:443", "deny"),
    ):
        assert remit.check(op, resource).verdict == verdict, (op, resource)
    assert "test.toml" in remit.check("read", project + "/secret/key").rule
    assert person.call("status")["ledger"]["rows"] == rows
    assert person.call("prompts") == []


def test_a_request_is_asked_with_its_purpose(ready: Machine) -> None:
    remit = client(ready)
    path = ready.root + "/asked/file"
    prompt, told = answered(
        ready, lambda: remit.request("read", path, purpose="to \x1b[2Jread it"), "allow", for_="once"
    )
    assert (prompt["purpose"], prompt["confined"], prompt["pid"]) == (
        "to \x1b[2Jread it",
        False,
        os.getpid(),
    )
    assert told
    assert told.prompt == prompt["id"]
    assert remit.request("read", path), "asking again does not use the answer up"
    os.close(remit.open(path))
    rows = ready.person().call("log", path=path)
    assert [(r["op"], r["actor"], r["verdict"], r["outcome"]) for r in rows][:2] == [
        ("read", "agent", "ask", "allowed"),
        ("answer", "human", "allow", "answered"),
    ]
    assert "purpose: to" in rows[0]["note"]


def test_a_question_says_nothing_that_its_asker_made_up(ready: Machine) -> None:
    """Arguments are of what would be run: of a read, a person would take them for those of the program that reads."""
    remit, path = client(ready), ready.root + "/asked/file"
    for op in ("read", "write", "connect"):
        resource = "ask.example:443" if op == "connect" else path
        with pytest.raises(RemitError) as e:
            remit.call(
                "request", {"op": op, "resource": resource, "argv": ["backup", "--nightly"], "wait": 0}
            )
        assert e.value.code == INVALID_PARAMS
    assert ready.person().call("prompts") == []
    remit.request("exec", "/usr/bin/nonexistent-tool", wait=0)
    remit.request("read", path, wait=0)
    assert [p["argv"] for p in ready.person().call("prompts")] == [[], []], (
        "nor its own command line, which it can write"
    )


def test_no_request_fills_the_ledger(ready: Machine) -> None:
    """What is recorded at each request is no longer than what a person can read, also where nobody is asked."""
    remit, path = client(ready), ready.root + "/project/a.txt"
    rows = ready.person().call("status")["ledger"]["rows"]
    for params in (
        {"purpose": "x" * 501},
        {"argv": ["x" * 65_537], "op": "exec"},
        {"argv": ["x" * 100] * 1000, "op": "exec"},
    ):
        with pytest.raises(RemitError) as e:
            remit.call("request", {"op": "read", "resource": path, "wait": 0} | params)
        assert e.value.code == INVALID_PARAMS
    with pytest.raises(RemitError):
        os.close(remit.open(path, purpose="x" * 501))
    with pytest.raises(RemitError):
        remit.intend("x" * 501, [])
    assert ready.person().call("status")["ledger"]["rows"] == rows


def test_a_request_that_is_denied_or_left(ready: Machine) -> None:
    remit = client(ready)
    path = ready.root + "/asked/file"
    _, told = answered(ready, lambda: remit.request("read", path), "deny", message="not now")
    assert (told.verdict, told.message) == ("deny", "not now")
    left = remit.request("write", path, wait=0)
    assert (left.verdict, bool(left)) == ("ask", False)
    (prompt,) = ready.person().call("prompts")
    assert prompt["id"] == left.prompt
    with pytest.raises(Denied) as no:
        remit.open(path, "write", wait=0)
    assert no.value.undecided
    denials = [(d["op"], d["outcome"]) for d in remit.denials()]
    assert ("read", "denied") in denials
    assert ("write", "expired") in denials


def test_open_gives_what_was_asked_and_no_more(ready: Machine) -> None:
    remit, project = client(ready), ready.root + "/project"
    fd = remit.open(project + "/a.txt")
    assert os.read(fd, 99) == b"project/a.txt"
    with pytest.raises(OSError):
        os.write(fd, b"x")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    assert flags & (os.O_NONBLOCK | os.O_PATH | os.O_ACCMODE) == os.O_RDONLY
    assert not os.get_inheritable(fd)
    os.close(fd)
    fd = remit.open(project + "/new", "create")
    os.write(fd, b"made")
    assert not stat.S_IMODE(os.fstat(fd).st_mode) & 0o022
    with pytest.raises(OSError):
        os.pread(fd, 1, 0)
    os.close(fd)
    with pytest.raises(Denied, match="File exists"):
        remit.open(project + "/new", "create")
    fd = remit.open(project + "/new", "readwrite")
    assert os.read(fd, 9) == b"made"
    os.close(fd)
    rows = ready.person().call("log", path=project + "/new")
    assert [(r["op"], r["outcome"]) for r in rows] == [
        ("create", "ok"),
        ("create", "EEXIST"),
        ("write", "ok"),
    ]


def hostile(root: str) -> dict[str, str]:
    os.symlink(root + "/project/secret/key", root + "/project/plain")
    os.symlink(root + "/project/a.txt", root + "/project/link")
    os.mkfifo(root + "/project/fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(root + "/project/sock")
    return {
        "a link to what is denied": root + "/project/plain",
        "a link that is denied by its own name": root + "/project/link",
        "a fifo": root + "/project/fifo",
        "a socket": root + "/project/sock",
        "a directory": root + "/project",
        "a device": "/dev/zero",
        "a terminal": "/dev/tty",
        "procfs": "/proc/self/environ",
        "another's memory": f"/proc/{os.getpid()}/mem",
        "another's root": f"/proc/{os.getpid()}/root{root}/project/a.txt",
        "remitd's own descriptors": "/proc/self/fd/3",
        "the same": "/dev/fd/3",
        "remit's ledger": root + "/state/remit/ledger.db",
        "remit's policy": root + "/config/remit/policy.d/test.toml",
        "nothing": root + "/project/none",
        "a file below a file": root + "/project/a.txt/x",
    }


def refused(remit: Remit, path: str, mode: str) -> bool:
    try:
        os.close(remit.open(path, mode, wait=0))
    except Denied:
        return True
    return False


def test_what_remitd_opens_counts_against_limits_but_for_reading(ready: Machine) -> None:
    ready.policy(POLICY.replace("ROOT", ready.root) + '[agent.tool.limits]\ncalls = "2/h"\n')
    person = ready.person()
    person.call("reload")
    remit, place = client(ready), f"{ready.root}/project/a.txt"

    def used() -> int:
        return round(person.call("limits")[0]["used"])

    for _ in range(3):
        os.close(remit.open(place))
    remit.request("write", place)
    assert used() == 0, "nothing was done yet"
    for _ in range(2):
        os.close(remit.open(place, "write"))
    assert used() == 2
    prompt, got = answered(ready, lambda: remit.open(place, "write"), "allow")
    assert prompt["limit"].startswith("2 of 2 acts per h are spent")
    os.close(got)
    prompt, got = answered(ready, lambda: remit.open(f"{ready.root}/project/b.txt", "create"), "deny")
    assert isinstance(got, Denied)
    assert not os.path.exists(f"{ready.root}/project/b.txt")


def test_open_gives_nothing_else(ready: Machine) -> None:
    remit = client(ready)
    for what, path in hostile(ready.root).items():
        for mode in ("read", "write", "readwrite"):
            assert refused(remit, path, mode), f"{what} was opened"
    for path in (
        ready.root + "/project/dir/",
        ready.root + "/project/..",
        "/proc/self/x",
        "/proc/1/task/x",
    ):
        with pytest.raises(Denied):
            os.close(remit.open(path.rstrip("/") + "/new", "create", wait=0))
    for params in (
        {"path": "a"},
        {"path": "/a\0b"},
        {"path": "/\ud800"},
        {"path": "/a", "mode": "rw"},
        {"path": 1},
        {},
    ):
        with pytest.raises(RemitError) as e:
            remit.call("open", params)
        assert e.value.code == INVALID_PARAMS


def test_a_swapped_link_wins_nothing(ready: Machine) -> None:
    project, stop = ready.root + "/project", threading.Event()
    names = [f"{project}/one", f"{project}/two"]
    os.symlink(project + "/a.txt", names[0])
    os.symlink(project + "/secret/key", names[1])

    def swap() -> None:
        while not stop.is_set():
            os.symlink(project + "/a.txt", names[0] + "n")
            os.rename(names[0] + "n", project + "/moving")
            os.symlink(project + "/secret/key", names[0] + "n")
            os.rename(names[0] + "n", project + "/moving")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        remit = client(ready)
        until(lambda: os.path.lexists(project + "/moving"), "the link is there")
        got = set()
        for _ in range(300):
            try:
                fd = remit.open(project + "/moving", wait=0)
            except Denied:
                got.add(b"denied")
                continue
            got.add(os.read(fd, 99))
            os.close(fd)
        assert got <= {b"denied", b"project/a.txt"}
        assert len(got) == 2, "the race was real"
    finally:
        stop.set()
        thread.join()


def test_a_lease_does_not_hold_remitd_up(ready: Machine) -> None:
    path = ready.root + "/project/leased"
    with open(path, "w") as f:
        f.write("x")
    holder = "import fcntl, sys, time; f = open(sys.argv[1], 'r+'); fcntl.fcntl(f, 1024, 1); print('held', flush=True); time.sleep(60)"
    ignore = "import signal; signal.signal(signal.SIGIO, signal.SIG_IGN); "
    with subprocess.Popen([sys.executable, "-c", ignore + holder, path], stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(Denied):
            os.close(client(ready).open(path))
        child.kill()


def test_a_helper_speaks_for_the_agent_that_started_it(ready: Machine) -> None:
    mine = client(ready).whoami()["session"]
    code = "import sys; from remit_client import Remit; print(Remit(sys.argv[1], pid=int(sys.argv[2])).whoami()['session'])"
    argv = [sys.executable, "-c", code, ready.paths.agent]
    done = subprocess.run([*argv, str(os.getpid())], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == mine
    other = subprocess.run([*argv, str(ready.process.pid)], capture_output=True, text=True)  # type: ignore[union-attr]
    assert "did not start" in other.stderr


def test_a_session_ends_with_its_process_and_outlives_remitd(ready: Machine) -> None:
    code = "import sys; from remit_client import Remit; r = Remit(sys.argv[1], agent='tool'); print(r.whoami()['session'], flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, ready.paths.agent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        ident = child.stdout.readline().decode().strip()
        ready.kill()
        ready.start()
        person = ready.person()
        assert [s["state"] for s in person.call("sessions") if s["id"] == ident] == ["running"]
    until(lambda: [s["state"] for s in person.call("sessions") if s["id"] == ident] == ["ended"], "it ends")


def test_the_person_ends_and_pauses_it(ready: Machine) -> None:
    remit, person = client(ready), ready.person()
    ident = remit.whoami()["session"]
    person.call("pause", session=ident)
    with pytest.raises(RemitError, match="paused"):
        remit.request("read", ready.root + "/project/a.txt")
    person.call("resume", session=ident)
    assert remit.request("read", ready.root + "/project/a.txt")
    person.call("stop", session=ident)
    until(lambda: person.call("sessions")[0]["state"] == "ended", "it is over")
    with pytest.raises(RemitError):
        remit.request("read", ready.root + "/project/a.txt")
    with pytest.raises(RemitError, match="was ended") as e:
        client(ready)
    assert e.value.code == REFUSED


def test_a_flood_of_questions_is_stopped(ready: Machine) -> None:
    remit = client(ready)
    codes = []
    for n in range(80):
        try:
            remit.request("read", f"{ready.root}/asked/{n}", wait=0)
        except RemitError as e:
            codes.append(e.code)
    assert codes
    assert set(codes) == {BUSY}
    assert len(ready.person().call("prompts")) <= 64


def test_connect_gives_a_socket_to_what_is_allowed(ready: Machine) -> None:
    remit = client(ready)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(4)
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            with remit.connect(host, port, purpose="p") as sock:
                theirs, _ = listener.accept()
                theirs.sendall(b"hello")
                assert sock.recv(9) == b"hello"
                theirs.close()
        for host in ("no.example",):
            with pytest.raises(Denied, match="policy denies"):
                remit.connect(host, port)
        with pytest.raises(Denied):
            remit.connect("10.255.255.1", port, wait=0)
    with pytest.raises(Denied, match="refused") as e:
        remit.connect("127.0.0.1", port)
    assert e.value.data["errno"] == "ECONNREFUSED"
    for params in (
        {"host": "", "port": 1},
        {"host": "a b", "port": 1},
        {"host": "a", "port": 0},
        {"host": "a", "port": 1 << 16},
    ):
        with pytest.raises(RemitError) as wrong:
            remit.call("connect", params)
        assert wrong.value.code == INVALID_PARAMS
    rows = ready.person().call("log", op="connect")
    assert [r["outcome"] for r in rows] == ["ok", "ok", "refused", "expired", "ECONNREFUSED"]


@pytest.mark.parametrize(
    ("method", "params", "text"),
    [
        ("request", {"op": "fly", "resource": "/x"}, "no known operation"),
        ("request", {"op": "connect", "resource": "nothing"}, "such as pypi.org:443"),
        ("request", {"op": "read", "resource": "/x", "purpose": "y" * 501}, "at most 500"),
        ("request", {"op": "read", "resource": "/x", "wait": -1}, "number of seconds"),
        ("request", {"op": "read", "resource": "/x", "argv": [1]}, "list of at most"),
        ("request", {"op": "read", "resource": "/" + "x" * 20_000}, "at most 16384"),
        ("check", {"op": "read"}, "resource is missing"),
        ("intend", {"purpose": ""}, "a purpose is 1 to"),
        ("intend", {"purpose": "x", "resources": [1]}, "list of at most"),
        ("hello", {"agent": "a\nb"}, "printable"),
        ("hello", {"pid": 1}, "did not start|no process"),
    ],
)
def test_bad_requests(ready: Machine, method: str, params: dict[str, Any], text: str) -> None:
    remit = client(ready, agent="")
    with pytest.raises(RemitError, match=text):
        remit.call(method, params)
    assert ready.person().call("prompts") == []


def test_ten_lines_are_enough_without_the_client(ready: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(ready.paths.agent)
        ask = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "open",
            "params": {"path": ready.root + "/project/a.txt", "wait": 0},
        }
        s.sendall(json.dumps(ask).encode() + b"\n")
        line, fds, _, _ = socket.recv_fds(s, 1 << 16, 1)
    assert "error" in json.loads(line) or os.read(fds[0], 99) == b"project/a.txt"
    for fd in fds:
        os.close(fd)


def test_without_a_daemon() -> None:
    with pytest.raises(NoDaemon):
        Remit("/nonexistent/agent.sock")
    assert address({"REMIT_SOCKET": "/s"}) == "/s"
