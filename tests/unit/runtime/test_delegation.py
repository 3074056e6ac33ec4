"""Sub-sessions at the real daemon, with a supervisor that confines nothing."""

from __future__ import annotations

import itertools
import os
import resource
import socket
import threading
from typing import Any

import pytest

from fakes.machine import Machine, until
from fakes.supervisor import FakePerson, FakeSupervisor, RpcError
from remit_daemon.peers import mark
from remit_daemon.wire.control import SUB_END
from remit_policy import model
from remit_policy.narrowed import engine_of

POLICY = 'version = 1\n[agent.helper]\nroles = ["h"]\n[role.h.files]\nread = { deny = ["$PROJECT/x"] }\n'


_ends = itertools.count()


class Asking:
    """A program of the session that delegates, in a thread: the supervisor has to answer meanwhile."""

    def __init__(self, caller: FakePerson, /, **params: Any) -> None:
        self.result: Any = None
        self.error: RpcError | None = None
        self._thread = threading.Thread(
            target=self._run, args=(caller, {"argv": ["helper", "it"]} | params)
        )
        self._thread.start()

    def _run(self, caller: FakePerson, params: dict[str, Any]) -> None:
        try:
            self.result = caller.call("delegate", **params)
        except RpcError as e:
            self.error = e

    def done(self) -> Any:
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


class Writer:
    """A process that carries marks and writes on ``sock``, which others read: whose a line is tells its writer."""

    def __init__(self, sock: socket.socket, marks: tuple[int, int]) -> None:
        self._sock = sock
        lines, self._into = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                resource.setrlimit(resource.RLIMIT_RTTIME, marks)
                os.close(self._into)
                while data := os.read(lines, 1 << 16):
                    sock.sendall(data)
            finally:
                os._exit(0)
        os.close(lines)

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._into, data) :]

    def close(self) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)
        os.close(self._into)
        self._sock.close()


# What would hold remitd's one thread, and so the person, for some twenty seconds; for a second, and as long again at every change
# of policy; and at every act.
SLOW = (
    "version = 1\n"
    + "".join(f'[role.r{i}]\ninherits = ["r{i + 1}"]\n' for i in range(15000))
    + "[role.r15000]\n"
)
MANY = 'version = 1\n[role.x.files]\nread = { deny = ["/{a,b,c,d,e,f,g}/{a,b,c,d,e,f,g}/{a,b,c,d,e,f,g}/{a,b,c,d,e,f}"] }\n'
LIMITED = "version = 1\n" + "".join(
    f'[agent.a{i}]\nmatch = {{ name = "h" }}\nroles = ["default"]\nlimits = {{ calls = "9/h" }}\n'
    for i in range(9)
)


class World:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.sup: FakeSupervisor = machine.supervisor(tmpdir="/tmp/remit-none")
        self.sup.connect()
        self.marks: dict[str, int] = {}
        self.agent = self.inside()
        self.person = machine.person()

    def delegate(self, caller: FakePerson | None = None, /, **params: Any) -> tuple[dict[str, Any], Any]:
        """Delegate with the supervisor's consent; returns the frame that it got and what the program got."""
        asking = Asking(caller or self.agent, **params)
        frame = self.sup.read()
        assert frame["type"] == "delegate", frame
        self.marks[frame["sub"]] = frame["mark"]
        self.sup.send({"type": "delegated", "sub": frame["sub"], "error": "", "env": ["A=b=c", "D="]})
        return frame, asking.done()

    def inside(self, sub: str = "", writer: str | None = None) -> FakePerson:
        """A program of the session, or of a sub-session: its supervisor, which connects for it, has then named the connection's end.
        ``writer``: the sub-session that really writes."""
        made = FakePerson.__new__(FakePerson)
        sock = socket.socket(socket.AF_UNIX)
        if sub:
            sock.bind(SUB_END + sub.encode() + b"-%d" % next(_ends))
        sock.connect(self.machine.paths.agent)
        sock.settimeout(10)
        own = self.marks.get(sub if writer is None else writer, self.sup.tag)
        made.file, made.ident, made.heard = sock.makefile("rb"), 0, []
        made.sock = Writer(sock, (own, self.sup.tag))  # type: ignore[assignment]
        self.machine.open.append(made)
        return made

    def sessions(self) -> dict[str, Any]:
        return {s["id"]: s for s in self.person.call("sessions")}


@pytest.fixture
def world(machine: Machine) -> World:
    return World(machine)


def test_a_program_gets_a_ticket_and_the_supervisor_what_to_make(world: World) -> None:
    frame, given = world.delegate(agent="helper", policy=POLICY)
    assert given["env"] == {"A": "b=c", "D": ""}
    assert (given["session"], given["ticket"]) == (frame["sub"], frame["ticket"])
    assert given["agent"] == frame["agent"] == "helper of claude"
    assert frame["parent"] == world.sup.session
    assert mark.is_tag(frame["mark"])
    assert frame["mark"] < world.sup.tag
    assert frame["tmpdir"] == f"/tmp/remit-none/{frame['sub']}"
    snapshot = model.loads(frame["snapshot"])
    path = world.sup.hello["project"] + "/x"
    assert engine_of(snapshot).decide("read", path).verdict == model.DENY
    assert snapshot.within is not None
    assert engine_of(snapshot.within).decide("read", path).verdict != model.DENY
    shown = world.sessions()[frame["sub"]]
    assert (shown["agent"], shown["parent"], shown["state"]) == (
        "helper of claude",
        world.sup.session,
        "running",
    )
    (row,) = world.person.call("log", session=frame["sub"])
    assert row["note"] == f"delegated by {world.sup.session}"


def test_its_asks_and_answers_name_it(world: World) -> None:
    frame, _ = world.delegate(agent="helper")
    sub = frame["sub"]
    world.sup.ask("/srv/x", seq=1, sub=sub)
    asked = world.sup.read()
    assert (asked["type"], asked["sub"], asked["seq"]) == ("asked", sub, 1)
    world.sup.ask("/srv/y", seq=1)  # the same number, of the session itself
    assert "sub" not in world.sup.read()
    assert [p["agent"] for p in world.person.call("prompts")] == ["helper of claude", "claude"]
    world.person.call("answer", id=asked["prompt"], verdict="allow")
    answer = world.sup.read()
    assert (answer["type"], answer["sub"], answer["verdict"]) == ("answer", sub, "allow")
    world.person.call("stop", session=sub)
    assert world.sup.read() == {"type": "stop", "sub": sub}


def test_it_ends_by_its_supervisors_word_and_leaves_nothing(world: World, machine: Machine) -> None:
    frame, _ = world.delegate(agent="helper", policy=POLICY)
    kept = f"{machine.paths.spool}/{frame['sub']}.toml"
    assert os.path.exists(kept)
    world.sup.send({"type": "over", "sub": frame["sub"]})
    until(lambda: world.sessions()[frame["sub"]]["state"] == "ended", "it ends")
    until(lambda: not os.path.exists(kept), "its policy goes")
    assert world.sessions()[world.sup.session]["state"] == "running"
    world.sup.ask("/srv/x", seq=9, sub=frame["sub"])  # it crossed
    world.sup.ask("/srv/x", seq=10)
    assert world.sup.read()["seq"] == 10


def test_its_programs_are_told_from_those_above(world: World) -> None:
    frame, _ = world.delegate(agent="helper")
    inside = world.inside(frame["sub"])
    me = inside.call("whoami")
    assert (me["session"], me["parent"], me["agent"]) == (
        frame["sub"],
        world.sup.session,
        "helper of claude",
    )
    own, above = inside.call("token"), world.agent.call("token")
    assert inside.call("token.introspect", token=own["access_token"])["act"] == {
        "sub": "helper",
        "act": {"sub": "claude"},
    }
    assert not inside.call("token.introspect", token=above["access_token"])["active"]
    assert not world.agent.call("token.introspect", token=own["access_token"])["active"]
    deeper, _ = world.delegate(inside, agent="third")
    assert deeper["parent"] == frame["sub"]
    assert deeper["agent"] == "third of helper of claude"
    third, kept = world.inside(deeper["sub"]), world.inside(frame["sub"])
    with pytest.raises(RpcError, match="at most 2 deep"):
        third.call("delegate", argv=["x"], agent="fourth")
    narrow = third.call("token", scope="reader")
    with pytest.raises(RpcError, match="at most"):
        third.call("token.exchange", subject_token=narrow["access_token"], agent="fourth")
    world.sup.send({"type": "over", "sub": frame["sub"]})
    until(lambda: world.sessions()[deeper["sub"]]["state"] == "ended", "what is below ends with it")
    for late in (kept, world.inside(frame["sub"])):
        with pytest.raises((RpcError, EOFError, ConnectionError)):
            late.call("token")


def test_a_connection_is_for_its_own_party_alone(world: World) -> None:
    frame, _ = world.delegate(agent="helper")
    for link in (world.inside(writer=frame["sub"]), world.inside(frame["sub"], writer="")):
        with pytest.raises(RpcError, match="is not inside session"):
            link.call("delegate", argv=["x"], agent="wide")


def test_the_name_of_another_ones_sub_session_is_no_way_in(world: World) -> None:
    with pytest.raises((RpcError, EOFError)):
        world.inside("s00000").call("whoami")
    with pytest.raises((RpcError, EOFError)):
        world.inside(world.sup.session).call("whoami")


def test_what_cannot_be_is_said_and_makes_nothing(world: World) -> None:
    for params, says in (
        ({"argv": []}, "argv"),
        ({"argv": [7]}, "argv"),
        ({"agent": "a of b"}, "letters, digits"),
        ({"agent": "x" * 65}, "letters, digits"),
        ({"agent": "h", "policy": "version = 1\nnonsense = 2\n"}, "the policy given:2"),
        ({"agent": "h", "policy": "\udc80"}, "the policy given"),
        ({"agent": "h", "policy": "\ud800"}, "the policy given"),
        ({"agent": "h", "policy": "#" * (32 << 10) + "#"}, "longer than"),
        ({"agent": "h", "policy": SLOW}, "longer than"),
        ({"agent": "h", "policy": MANY}, "too many patterns"),
        ({"agent": "h", "policy": LIMITED}, "more than 8 limits"),
        ({"agent": "h", "tag": 3}, "tag"),
    ):
        with pytest.raises(RpcError, match=says):
            world.agent.call("delegate", **({"argv": ["x"]} | params))
    assert list(world.sessions()) == [world.sup.session]
    assert not [n for n in os.listdir(world.machine.paths.spool) if n.endswith(".toml")]


def test_what_the_supervisor_cannot_make_has_ended(world: World) -> None:
    asking = Asking(world.agent, agent="helper")
    frame = world.sup.read()
    world.sup.send({"type": "delegated", "sub": frame["sub"], "error": "reads are fixed", "env": []})
    with pytest.raises(RpcError, match="reads are fixed"):
        asking.done()
    until(lambda: world.sessions()[frame["sub"]]["state"] == "ended", "it ends")


def test_there_are_only_so_many_at_once(world: World) -> None:
    subs = [world.delegate(agent="helper")[0]["sub"] for _ in range(16)]
    with pytest.raises(RpcError, match="16 sub-sessions already"):
        world.agent.call("delegate", argv=["x"], agent="helper")
    world.sup.send({"type": "over", "sub": subs[3]})
    until(lambda: world.sessions()[subs[3]]["state"] == "ended", "one ends")
    world.delegate(agent="helper")


def test_a_new_remitd_goes_on_with_those_that_are_left(world: World, machine: Machine) -> None:
    kept, gone = (world.delegate(agent="helper", policy=POLICY)[0]["sub"] for _ in range(2))
    world.sup.ask("/srv/x", seq=5, sub=kept)
    prompt = world.sup.read()["prompt"]
    machine.kill()
    machine.start()
    world.person = machine.person()
    assert world.sup.connect()["type"] == "welcome"
    world.sup.send({"type": "subs", "subs": [kept]})
    pushed = world.sup.read()
    assert (pushed["type"], pushed["sub"]) == ("snapshot", kept)
    assert (
        engine_of(model.loads(pushed["snapshot"])).decide("read", world.sup.hello["project"] + "/x").verdict
        == model.DENY
    )
    world.sup.ask("/srv/x", seq=5, sub=kept)
    assert world.sup.read()["prompt"] == prompt
    until(lambda: world.sessions()[gone]["state"] == "ended", "the other one ended meanwhile")
    world.sup.send({"type": "end", "status": 0})
    until(lambda: world.sessions()[kept]["state"] == "ended", "and this one with its session")


def test_a_supervisor_speaks_for_its_own_alone(world: World, machine: Machine) -> None:
    mine = world.delegate(agent="helper")[0]["sub"]
    for frame in (
        {"type": "over", "sub": mine},
        {"type": "subs", "subs": [mine]},
        {"type": "delegated", "sub": mine, "error": "", "env": []},
        {"type": "cancel", "seq": 1, "why": "gone", "sub": 7},
    ):
        other = machine.supervisor()
        other.connect()
        other.send(frame)
        with pytest.raises(EOFError):
            other.read()
    assert world.sessions()[mine]["state"] == "running"
