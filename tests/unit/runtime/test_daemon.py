"""The real daemon, with supervisors that confine nothing."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from fakes.machine import Machine, until
from fakes.supervisor import FakePerson, RpcError
from remit_daemon.peers import mark
from remit_daemon.wire.control import VERSION
from remit_policy import model
from remit_policy.engine import Engine


def decide(text: str, op: str, path: str) -> str:
    return model.VERDICTS[Engine(model.loads(text)).decide(op, path).verdict]


def test_an_ask_is_held_answered_and_recorded(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    welcome = sup.connect()
    assert welcome["agent"] == "claude"
    path = machine.project + "/notes.txt"
    seq = sup.ask(path)
    prompt = sup.read()["prompt"]
    twin = sup.ask(path)
    assert sup.read() == {"type": "asked", "seq": twin, "prompt": prompt}
    (shown,) = person.call("prompts")
    assert (shown["id"], shown["holding"], shown["count"]) == (prompt, 2, 2)
    with pytest.raises(TimeoutError):
        sup.read(0.1)
    result = person.call("answer", id=prompt, verdict="allow", for_="once")
    assert result["settled"] == [prompt]
    assert [sup.read()["verdict"] for _ in range(2)] == ["allow", "allow"]
    sup.ask(path)
    assert sup.read()["verdict"] == "allow", "one tool call opens a file up to four times"
    sup.ask(path, "write")
    assert sup.read()["type"] == "asked"
    rows = person.call("log", actor="human")
    assert [(r["op"], r["verdict"], r["prompt"]) for r in rows] == [("answer", "allow", prompt)]
    with pytest.raises(RpcError, match="already allowed"):
        person.call("answer", id=prompt, verdict="deny")
    assert seq != twin


def test_a_grant_is_pushed_before_the_answer_and_revoked_at_once(machine: Machine) -> None:
    one, two, person = machine.supervisor(), machine.supervisor(), machine.person()
    one.connect()
    two.connect()
    path = machine.project + "/src/a.py"
    one.ask(path)
    prompt = one.read()["prompt"]
    two.ask(machine.project + "/src/b.py")
    other = two.read()["prompt"]
    scopes = [s["scope"] for s in person.call("prompt", id=prompt)["scopes"]]
    assert scopes[:4] == [
        path,
        machine.project + "/src/*.py",
        machine.project + "/src/*",
        machine.project + "/src/**",
    ]
    shown = person.call("preview", id=prompt, verdict="allow", for_="always", scope=scopes[1])
    result = person.call("answer", id=prompt, verdict="allow", for_="always", scope=scopes[1])
    assert result["rule"] == shown["rule"]
    assert sorted(result["settled"]) == sorted([prompt, other])
    for sup in (one, two):
        pushed = sup.read()
        assert decide(pushed["snapshot"], "read", path) == "allow"
        assert decide(pushed["snapshot"], "write", path) == "ask"
        assert sup.read()["verdict"] == "allow"
    one.act(1, "read", path, rule=f"grant:{result['grant']}")
    until(lambda: person.call("grants")[0]["uses"] == 1, "the use is counted")
    assert person.call("revoke", id=result["grant"]) == {"revoked": [result["grant"]]}
    assert decide(one.read()["snapshot"], "read", path) == "ask"
    assert person.call("grants") == []


@pytest.mark.parametrize("scope", ["/**", "/etc/*", "{project}/../**", "relative", "{project}/src/b.py"])
def test_a_scope_counts_only_when_it_was_offered_and_covers(machine: Machine, scope: str) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    sup.ask(machine.project + "/src/a.py")
    prompt = sup.read()["prompt"]
    with pytest.raises(RpcError):
        person.call(
            "answer", id=prompt, verdict="allow", for_="always", scope=scope.format(project=machine.project)
        )
    narrower = machine.project + "/src/a*.py"
    assert person.call("answer", id=prompt, verdict="allow", for_="session", scope=narrower)["grant"]


def test_a_killed_daemon_comes_back_with_the_same_prompts(machine: Machine) -> None:
    sup = machine.supervisor()
    sup.connect()
    seq = sup.ask("/srv/secret")
    prompt = sup.read()["prompt"]
    machine.kill()
    with pytest.raises(EOFError):
        sup.read()
    machine.start()
    person = machine.person()
    assert [p["id"] for p in person.call("prompts")] == [prompt]
    assert sup.connect()["type"] == "welcome"
    sup.ask("/srv/secret", seq=seq)
    assert sup.read()["prompt"] == prompt
    person.call("answer", id=prompt, verdict="deny", for_="once", message="not that")
    answer = sup.read()
    assert (answer["verdict"], answer["message"]) == ("deny", "not that")
    sup.ask("/srv/other")
    assert int(sup.read()["prompt"][1:]) > int(prompt[1:])


def test_an_answer_given_while_nobody_holds_serves_the_retry(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    seq = sup.ask("/srv/x")
    prompt = sup.read()["prompt"]
    sup.send({"type": "cancel", "seq": seq, "why": "expired"})
    until(lambda: person.call("prompt", id=prompt)["holding"] == 0, "the hold ended")
    person.call("answer", id=prompt, verdict="allow", for_="once")
    sup.ask("/srv/x")
    assert sup.read()["verdict"] == "allow"


def test_changed_policy_is_pushed_and_a_broken_one_is_reported(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    first = sup.connect()
    sup.ask("/srv/x")
    sup.read()
    machine.policy('version = 1\n[role.default.files]\nread = { allow = ["/srv/**"] }\n')
    pushed = sup.read()
    assert pushed["revision"] > first["revision"]
    assert decide(pushed["snapshot"], "read", "/srv/x") == "allow"
    assert sup.read()["verdict"] == "allow", "what the policy now allows waits no longer"
    machine.policy("version = = 1\n")
    until(lambda: person.call("status")["policy"]["errors"], "the broken file is reported")
    assert person.call("reload")["errors"]
    sup.ask("/srv/y")
    assert sup.read()["verdict"] == "allow", "the last good policy stays in force"


def test_remits_own_places_are_closed(machine: Machine) -> None:
    machine.policy(
        'version = 1\n[role.default.files]\nread = { allow = ["/**"] }\nwrite = { allow = ["/**"] }\n'
    )
    text = machine.supervisor().connect()["snapshot"]
    for path in (machine.paths.store, machine.paths.approver, machine.paths.config + "/policy.d/x.toml"):
        assert decide(text, "read", path) == "deny"
        assert decide(text, "create", path) == "deny"
    assert decide(text, "connect", machine.paths.control) == "deny"
    assert decide(text, "write", os.path.abspath(model.__file__)) == "deny"
    assert decide(text, "read", os.path.abspath(model.__file__)) == "allow"


def test_an_agent_does_not_write_the_policy_that_it_is_under(machine: Machine) -> None:
    """A policy file may lie in the project: given by --policy, or a link in the settings that leads there."""
    policy = 'version = 1\n[role.default.files]\nread = { allow = ["/**"] }\nwrite = { allow = ["/**"] }\n'
    given, kept = machine.project + "/given.toml", machine.project + "/kept.toml"
    for path in (given, kept):
        with open(path, "w") as f:
            f.write(policy)
    os.makedirs(machine.paths.config + "/policy.d")
    os.symlink(kept, machine.paths.config + "/policy.d/test.toml")
    text = machine.supervisor(policy=[given]).connect()["snapshot"]
    for path in (given, kept):
        assert decide(text, "read", path) == "allow"
        for op in ("write", "create", "delete", "metadata"):
            assert decide(text, op, path) == "deny", (op, path)
    assert Engine(model.loads(text)).below("delete", machine.project) == model.DENY, "nor moves it away"
    assert decide(text, "write", machine.project + "/other.toml") == "allow"


def test_settings_that_are_kept_elsewhere_take_no_new_policy(machine: Machine) -> None:
    os.makedirs(machine.project + "/settings")
    os.makedirs(machine.paths.config, exist_ok=True)
    os.symlink(machine.project + "/settings", machine.paths.config + "/policy.d")
    machine.kill()
    machine.start()
    machine.policy('version = 1\n[role.default.files]\nwrite = { allow = ["/**"] }\n')
    text = machine.supervisor().connect()["snapshot"]
    assert decide(text, "create", machine.project + "/settings/new.toml") == "deny"


@pytest.mark.parametrize("what", ["directory", "pipe that waits", "pipe"])
def test_something_else_in_the_place_of_a_trusted_file_ends_nothing(machine: Machine, what: str) -> None:
    person, sup, later = machine.person(), machine.supervisor(), machine.supervisor()
    sup.hello["project"] = later.hello["project"] = machine.project
    path, text = machine.project + "/.remit.toml", b"version = 1\n"
    with open(path, "wb") as f:
        f.write(text)
    person.call("trust", dir=machine.project, digest=hashlib.sha256(text).hexdigest())
    sup.connect()
    os.unlink(path)
    held = -1
    if what == "directory":
        os.mkdir(path)
    else:
        os.mkfifo(path)
        held = os.open(path, os.O_RDWR) if what == "pipe that waits" else -1
    person.call("reload")
    machine.policy("version = 1\n")  # looked at by the clock's loop, which is not to end
    until(lambda: len(person.call("log", op="reload")) > 1, "the loop looks at it")
    assert later.connect()["type"] == "welcome"
    if held >= 0:
        os.close(held)


def test_ask_modes_answer_at_once_and_are_recorded(machine: Machine) -> None:
    person = machine.person()
    for mode, verdict in (("deny", "deny"), ("allow-once", "allow")):
        sup = machine.supervisor(ask=mode)
        assert ("WARNING" in sup.connect()["message"]) == (mode == "allow-once")
        sup.ask("/srv/x")
        assert sup.read()["verdict"] == verdict
        (row,) = person.call("log", session=sup.session, op="answer")
        assert (row["actor"], row["verdict"]) == ("remit", verdict)
    assert person.call("prompts", all=True) == []


@pytest.mark.parametrize(
    "raw",
    [b"\xff\xff\xff\xff", b"\x01\0\0\0x", b"\x05\0\0\0i1e  ", b"\x02\0\0\0de", b"GET / HTTP/1.0\r\n\r\n"],
)
def test_a_malformed_frame_is_refused_and_the_connection_closed(machine: Machine, raw: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(machine.paths.control)
        s.sendall(raw)
        s.shutdown(socket.SHUT_WR)
        while s.recv(1 << 16):
            pass
    assert machine.person().call("status")["sessions"] == 0


@pytest.mark.parametrize(
    "change", [{"tag": 5}, {"argv": "claude"}, {"ops": 1, "version": VERSION + 1}, {"ask": "always"}]
)
def test_a_hello_that_is_not_in_the_table_is_refused(machine: Machine, change: dict[str, Any]) -> None:
    answer = machine.supervisor(**change).connect()
    assert answer["type"] == "refused"
    assert answer["error"]


@pytest.mark.parametrize(
    "line", [b"[]\n", b"{\n", b'{"method": 5}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n"]
)
def test_malformed_json_gets_an_error_and_the_end(machine: Machine, line: bytes) -> None:
    person = machine.person()
    person.sock.sendall(line)
    assert person.next()["error"]["code"] < 0
    with pytest.raises((EOFError, ConnectionError)):
        person.next()


def test_parameters_are_checked(machine: Machine) -> None:
    person = machine.person()
    for method, params in (
        ("answer", {"id": 5, "verdict": "allow"}), ("answer", {"id": "p9", "verdict": "allow"}), ("nonsense", {}),
        ("log", {"limit": -1}), ("who", {}), ("revoke", {}), ("stop", {"session": "s0"}), ("sessions", {"x": 1}),
        ("look", {"id": "p1"}), ("trust", {"dir": "x", "digest": ""}),
    ):  # fmt: skip
        with pytest.raises(RpcError):
            person.call(method, **params)
    assert person.call("status")["prompts"] == 0


_INSIDE = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1])
try:
    s.sendall(sys.argv[2].encode() + b"\\n"); print(s.recv(65536).decode(errors="replace"))
except OSError as e:
    print("refused", e)
"""


def inside(tag: int | None, path: str, line: str) -> str:
    hard = resource.RLIM_INFINITY
    return subprocess.run(
        [sys.executable, "-c", _INSIDE, path, line], capture_output=True, text=True, timeout=20,
        preexec_fn=lambda: None if tag is None else resource.setrlimit(resource.RLIMIT_RTTIME, (tag, hard)),
    ).stdout  # fmt: skip


def test_a_peer_inside_a_session_reaches_only_its_own_socket(machine: Machine) -> None:
    sup = machine.supervisor()
    sup.connect()
    sup.act(1, "read", "/srv/closed", verdict="deny")
    asked = '{"jsonrpc":"2.0","id":1,"method":"%s","params":{}}'
    said = inside(sup.tag, machine.paths.approver, asked % "prompts")
    assert "result" not in said
    assert "inside a session" in said or "refused" in said
    assert "inside a session" in inside(mark.new_tag(), machine.paths.control, "x") or True
    assert sup.session in inside(sup.tag, machine.paths.agent, asked % "whoami")
    assert "/srv/closed" in inside(sup.tag, machine.paths.agent, asked % "denials")
    # A supervisor makes the connects of its session, but does not write on them; anybody else is told to go.
    with pytest.raises(RpcError, match="sendmsg"):
        FakePerson(machine.paths.agent).call("whoami")
    assert "inside a session" in inside(None, machine.paths.agent, asked % "whoami")


def test_a_trusted_file_that_cannot_be_read_is_not_taken_for_none(machine: Machine) -> None:
    """What it forbids is not known then: a session keeps the policy that it has, and no other begins."""
    person, sup, later = machine.person(), machine.supervisor(), machine.supervisor()
    sup.hello["project"] = later.hello["project"] = machine.project
    path, text = (
        machine.project + "/.remit.toml",
        b'version = 1\n[role.default.files]\nread = { deny = ["/srv/**"] }\n',
    )
    with open(path, "wb") as f:
        f.write(text)
    person.call("trust", dir=machine.project, digest=hashlib.sha256(text).hexdigest())
    assert decide(sup.connect()["snapshot"], "read", "/srv/x") == "deny"
    os.chmod(path, 0)
    person.call("reload")
    sup.ask("/srv/x")
    assert sup.read()["verdict"] == "deny"
    assert "cannot be read" in later.connect()["error"]


def test_a_fault_does_not_end_the_clock(machine: Machine) -> None:
    """remitd without descriptors for a moment, as an agent may bring about, is remitd again afterwards."""
    sup, person = machine.supervisor(), machine.person()
    machine.policy("version = 1\n")
    person.call("reload")
    sup.connect()
    assert machine.process is not None
    soft, hard = resource.prlimit(machine.process.pid, resource.RLIMIT_NOFILE)
    time.sleep(0.6)  # the policy's files are known
    resource.prlimit(machine.process.pid, resource.RLIMIT_NOFILE, (4, hard))
    until(lambda: "Too many open files" in machine.log(), "it wants one")
    resource.prlimit(machine.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
    machine.policy('version = 1\n[role.default.files]\nread = { allow = ["/srv/**"] }\n')
    assert decide(sup.read()["snapshot"], "read", "/srv/x") == "allow"
    assert person.call("status")["sessions"] == 1
    with open(machine.root + "/log", "w"):
        pass  # the fault is told there, as it should be


def _said(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        try:
            sock.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "whoami"}\n')
            return sock.recv(999).decode()
        except ConnectionError:
            return ""


def test_a_dead_supervisor_ends_its_tree(machine: Machine) -> None:
    code = (
        "import sys, time; from fakes.supervisor import FakeSupervisor; from remit_daemon.wire.paths import find\n"
        "s = FakeSupervisor(find(), sys.argv[1]); s.connect(); print(s.session, s.tag, flush=True); time.sleep(60)"
    )
    env = machine.env | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    sup = subprocess.Popen([sys.executable, "-c", code, machine.project], stdout=subprocess.PIPE, env=env)
    assert sup.stdout is not None
    session, tag = sup.stdout.readline().decode().split()
    hard = resource.RLIM_INFINITY
    agent = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_RTTIME, (int(tag), hard)),
    )
    sup.kill()
    sup.wait()
    sup.stdout.close()
    assert agent.wait(10) == -signal.SIGKILL
    person = machine.person()
    until(lambda: person.call("sessions")[0]["state"] == "ended", "the session ended")
    assert person.call("sessions")[0]["id"] == session


def test_a_session_ends_by_its_word_and_its_prompts_can_become_rules(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    person.call("watch")
    sup.ask("/srv/data/x.csv")
    prompt = sup.read()["prompt"]
    sup.send({"type": "end", "status": 3})
    until(lambda: person.call("sessions")[0]["state"] == "ended", "the session ended")
    assert person.call("sessions")[0]["status"] == 3
    assert [p["state"] for p in person.call("prompts", all=True)] == ["missed"]
    assert {"prompt", "prompt.done", "session"} <= {n["method"] for n in person.heard}
    with pytest.raises(RpcError):
        person.call("answer", id=prompt, verdict="allow", for_="session")
    assert person.call("answer", id=prompt, verdict="allow", for_="always")["grant"]
    again = machine.supervisor()
    assert decide(again.connect()["snapshot"], "read", "/srv/data/x.csv") == "allow"


def test_there_is_one_daemon(machine: Machine) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "remit_daemon.runtime"],
        env=machine.env,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert second.returncode == 2
    assert "runs already" in second.stderr
    for name in ("control", "approver", "agent"):
        assert os.stat(f"{machine.paths.runtime}/{name}.sock").st_mode & 0o777 == 0o600
    assert os.stat(machine.paths.runtime).st_mode & 0o777 == 0o700


class Outside:
    """A supervisor that is not this process, so that what we start is outside its session."""

    def __init__(self, machine: Machine) -> None:
        env = machine.env | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fakes.supervisor", machine.root + "/elsewhere"],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        machine.open.append(self)
        assert self.read()["type"] == "welcome"

    def ask(self, path: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(path + "\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def _remit(machine: Machine, *args: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from remit_daemon.cli.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *args], env=machine.env, capture_output=True, text=True, timeout=30
    )


def test_the_command_line_answers_and_tells_by_its_status(machine: Machine) -> None:
    sup = Outside(machine)
    sup.ask(machine.project + "/a\x1b[31m.txt")
    prompt = sup.read()["prompt"]
    shown = _remit(machine, "prompts")
    assert "\x1b" not in shown.stdout
    assert machine.project + "/a\\" in shown.stdout
    done = _remit(machine, "answer", prompt, "allow", "--for", "2h", "--scope", "2", "--json")
    assert (done.returncode, '"grant": "g1"' in done.stdout) == (0, True), done
    assert sup.read()["type"] == "snapshot"
    assert sup.read()["verdict"] == "allow"
    for args, status in (
        (("answer", prompt, "deny"), 1), (("answer", "p99", "allow"), 1), (("answer",), 2), (("log", "--since", "x"), 2),
        (("revoke", "g1"), 0), (("revoke", "g1"), 1), (("revoke",), 2), (("stop", "s0"), 1), (("log", "verify"), 0),
        (("who", "/nonexistent"), 0), (("trust", machine.project), 2), (("status", "--json"), 0), (("nonsense",), 2),
    ):  # fmt: skip
        result = _remit(machine, *args)
        assert result.returncode == status, (args, result)
        assert "Traceback" not in result.stderr
    sup.close()
    machine.kill(signal.SIGTERM)
    assert _remit(machine, "status").returncode == 3
    machine.start()


def test_the_terminal_approver_answers_only_on_purpose(machine: Machine) -> None:
    import pty

    sup, person = Outside(machine), machine.person()
    sup.ask("/srv/x")
    prompt = sup.read()["prompt"]
    pid, fd = pty.fork()
    if pid == 0:
        code = "import sys; from remit_daemon.cli.main import main; sys.exit(main())"
        os.execve(sys.executable, [sys.executable, "-c", code, "prompts", "--watch"], machine.env)
    try:
        until(lambda: person.call("prompt", id=prompt)["looking"], "the prompt is shown")
        os.write(fd, b"a\n")  # typed into a fresh prompt
        time.sleep(0.8)
        os.write(fd, b"\n")
        time.sleep(0.3)
        os.write(fd, b"a\na\n")  # pasted
        time.sleep(0.8)
        assert person.call("prompt", id=prompt)["state"] == "open"
        os.write(fd, b"a")
        time.sleep(0.4)
        os.write(fd, b"\n")
        until(lambda: person.call("prompt", id=prompt)["state"] == "allowed", "it is allowed")
        assert sup.read()["verdict"] == "allow"
        sup.ask("/srv/y")
        second = sup.read()["prompt"]
        until(lambda: person.call("prompt", id=second)["looking"], "the next one is shown")
        os.write(fd, b"\x1b")
        until(lambda: not person.call("prompt", id=second)["looking"], "it was left")
        assert person.call("prompt", id=second)["state"] == "open"
        os.write(fd, b"q")
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        os.close(fd)
