"""A whole session on a bus: remitd, the supervisor, the gateway, and programs with the libraries that people use.

A toy player is driven by a person's client and by an agent's at once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit_daemon.gateway.dbus import wire
from remit_daemon.wire.rpc import DENIED, FAILED
from system.buses import Client, Service, until
from system.harness import Arena

pytestmark = pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="there is no dbus-daemon")

NAME, PATH, FACE = "org.mpris.MediaPlayer2.toy", "/org/mpris/MediaPlayer2", "org.mpris.MediaPlayer2.Player"
POLICY = f"""
version = 1
[agent.toy]
match = {{ name = "toy" }}
roles = ["probe", "player"]
[role.player.dbus."{NAME}"]
see = {{ allow = ["*"] }}
call = {{ allow = ["{FACE}.*", "org.freedesktop.DBus.Properties.Get*"], deny = ["{FACE}.OpenUri"] }}
"""


class World:
    def __init__(self) -> None:
        self.arena = arena = Arena()
        arena.write_policy()
        Path(arena.home, ".config/remit/policy.d/toy.toml").write_text(POLICY)
        arena._own(arena.home + "/.config")
        self.address = f"unix:path={arena.run_dir}/dbus"
        argv = [
            "dbus-daemon",
            "--session",
            "--nofork",
            "--nopidfile",
            "--print-address=1",
            "--address=" + self.address,
        ]
        bus = arena.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert bus.stdout is not None
        assert bus.stdout.readline()
        self.env = arena.env | {"DBUS_SESSION_BUS_ADDRESS": self.address}
        arena.start_daemon(DBUS_SESSION_BUS_ADDRESS=self.address)
        # In the arena's home: the agent may read and run it there.
        self.toy = arena.home + "/readonly/toy_player.py"
        self.log = Path(arena.base, "player.log")
        self.start_player()

    def start_player(self) -> None:
        arena = self.arena
        arena.plant()
        shutil.copy(Path(__file__).with_name("toy_player.py"), self.toy)
        arena._own(arena.home + "/readonly")
        with self.log.open("wb") as log:
            arena.popen([sys.executable, self.toy, "serve"], env=self.env, stdout=log, stderr=log, cwd="/")
        until(lambda: b"ready" in self.log.read_bytes(), 10)

    def played(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line != "ready"]

    def agent(self, *command: str, seconds: float = 30) -> tuple[int, str, str]:
        return self.arena.communicate(
            self.arena.remit_run("/usr/bin/env", "-u", "PYTHONPATH", *command, agent="toy"),
            seconds,
            env=self.env,
        )

    def human(self, *command: str) -> tuple[int, str, str]:
        return self.arena.communicate(list(command), env=self.env)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    w = World()
    yield w
    w.arena.close()


def test_a_person_and_an_agent_at_once(world: World) -> None:
    arena = world.arena
    human = arena.popen(
        [sys.executable, world.toy, "drive", *(["play"] * 20), "open_uri"], env=world.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip
    code, out, err = world.agent(
        sys.executable, world.toy, "drive", *(["pause"] * 20), "open_uri", "status"
    )
    said, _ = human.communicate(timeout=30)
    assert said.decode().splitlines() == ["play done"] * 20 + ["open_uri done"]
    lines = out.splitlines()
    assert code == 0, err
    assert lines[:20] == ["pause done"] * 20
    assert lines[20].startswith(
        f"open_uri org.freedesktop.DBus.Error.AccessDenied refused by remit: call {NAME} {FACE}.OpenUri {PATH}"
    )
    assert lines[21].split()[0] == "status"
    played = world.played()
    assert (played.count("Playing"), played.count("Paused")) == (20, 20)
    assert [p for p in played if p.startswith("Open")] == ["Open file:///etc/passwd"]  # the person's


_ROUND = """
import json, sys
sys.path.insert(0, {code!r})
from remit_client import Remit, RemitError
found = []
with Remit() as remit:
    for name, path, member in {calls!r}:
        face, _, method = member.rpartition(".")
        try:
            remit.call_app(name, path, face, method, wait=0)
            found.append("done")
        except RemitError as e:
            found.append(str(e.code))
print(json.dumps(found))
"""


def test_a_call_by_remitd_is_no_way_round_the_filter(world: World) -> None:
    names = (
        "org.freedesktop.systemd1",
        "org.gtk.vfs.Daemon",
        "org.gnome.Shell",
        "org.freedesktop.secrets",
    )
    services = [Service(world.address, name) for name in names]
    bus, remit = "org.freedesktop.DBus", "dev.remit.Broker1"
    with Client(world.address) as client:
        (ours,) = wire.leading(client.bus("GetNameOwner", remit))
    calls = [(NAME, PATH, FACE + ".Pause")]
    calls += [(dest, "/x", s + ".Run") for s, p in zip(names, services, strict=True) for dest in (s, p.me)]
    calls += [(NAME, PATH, FACE + ".OpenUri"), (bus, "/org/freedesktop/DBus", bus + ".RequestName")]
    calls += [(dest, "/dev/remit/Broker1", remit + ".WhoAmI") for dest in (remit, ours)]
    before = world.played().count("Paused")
    try:
        code = _ROUND.format(code=world.arena.code, calls=calls)
        status, out, err = world.agent(sys.executable, "-c", code)
        assert status == 0, err
        first, *others = json.loads(out)
        assert first == "done"
        assert set(others) <= {str(DENIED), str(FAILED)}, list(zip(calls[1:], others, strict=True))
        assert [s.members() for s in services] == [[]] * len(services)
        assert world.played().count("Paused") == before + 1
    finally:
        for service in services:
            service.close()
    _, out, _ = world.arena.communicate(
        world.arena.remit("log", "--json", "--op", "call", "--agent", "toy")
    )
    rows = json.loads(out)[-len(calls) :]
    assert [r["verdict"] for r in rows if r["path"].startswith("org.freedesktop.secrets")] == ["ask"] * 2
    assert sum(r["verdict"] == "deny" for r in rows) == len(calls) - 3
    assert all(r["actor"] == "agent" for r in rows)


def test_the_agent_hears_the_player(world: World) -> None:
    arena = world.arena
    argv = arena.remit_run(
        "/usr/bin/env", "-u", "PYTHONPATH", sys.executable, world.toy, "listen", "4", agent="toy"
    )
    listener = arena.popen(argv, env=world.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert listener.stdout is not None
    assert listener.stdout.readline() == b"listening\n"
    world.human(sys.executable, world.toy, "drive", "play", "pause")
    heard, _ = listener.communicate(timeout=20)
    assert heard.decode().splitlines() == [
        f"{FACE} PlaybackStatus=Playing",
        f"{FACE} PlaybackStatus=Paused",
    ]


def test_the_ledger_says_who_called(world: World) -> None:
    world.agent(sys.executable, world.toy, "drive", "play")
    code, out, err = world.arena.communicate(world.arena.remit("log", "--json"))
    assert code == 0, err
    rows = [r for r in json.loads(out) if r["op"] == "call" and r["path"] == f"{NAME} {FACE}.Play {PATH}"]
    assert rows
    assert (rows[-1]["agent"], rows[-1]["verdict"], rows[-1]["outcome"]) == ("toy", "allow", "ok")
    assert rows[-1]["rule"].endswith("toy.toml:8")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["gdbus", "call", "--session", "-d", NAME, "-o", PATH, "-m", FACE + ".Play"], "()"),
        (["gdbus", "introspect", "--session", "-d", NAME, "-o", PATH], FACE),
        (["gdbus", "call", "--session", "-d", NAME, "-o", PATH, "-m", FACE + ".OpenUri", "x"], "refused by remit"),
        (["dbus-send", "--session", "--print-reply", "--dest=" + NAME, PATH, FACE + ".Pause"], "method return"),
        (["busctl", "--user", "call", NAME, PATH, FACE, "Play"], ""),
        (["busctl", "--user", "get-property", NAME, PATH, FACE, "PlaybackStatus"], 's "'),
        (["busctl", "--user", "list"], NAME),
        (["gdbus", "call", "--session", "-d", "org.freedesktop.systemd1", "-o", "/", "-m", "a.b.C"], "not provided by any .service files"),
        (["dbus-monitor", "--session", "--profile"], "refused by remit"),
    ],
)  # fmt: skip
def test_tools(world: World, command: list[str], said: str) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"there is no {command[0]}")
    _, out, err = world.agent("timeout", "3", *command)
    assert said in out + err
    if said not in ("refused by remit", "not provided by any .service files"):
        assert not err


def test_the_real_socket_leads_to_the_gateway(world: World) -> None:
    program = (
        "import socket,sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
        "s.sendall(b'\\0AUTH ANONYMOUS\\r\\n')\nprint(s.recv(99))"
    )
    _, out, err = world.agent("/usr/bin/python3", "-c", program, world.address.removeprefix("unix:path="))
    assert "REJECTED EXTERNAL" in out, err


@pytest.mark.skipif(not shutil.which("dbus-send"), reason="there is no dbus-send")
@pytest.mark.parametrize(("verdict", "said"), [("allow", "UnknownMethod"), ("deny", "the answer was no")])
def test_a_person_is_asked(world: World, verdict: str, said: str) -> None:
    """The call waits for the answer, and its first arguments are what the person is shown."""
    arena = world.arena
    command = (
        "dbus-send",
        "--session",
        "--print-reply",
        "--dest=" + NAME,
        PATH,
        "org.toy.Other.Do",
        "string:rm -rf",
        "string:" + verdict,
    )
    agent = arena.popen(
        arena.remit_run(*command, agent="toy", ask="prompt"), env=world.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip
    path = f"{NAME} org.toy.Other.Do {PATH} rm%20-rf {verdict}"

    def prompt() -> str:
        code, out, err = arena.communicate(arena.remit("prompts", "--json"))
        assert code == 0, err
        return next((p["id"] for p in json.loads(out) if p["path"] == path and p["state"] == "open"), "")

    code, out, err = arena.communicate(arena.remit("answer", until(prompt, 10), verdict))
    assert code == 0, out + err
    told, _ = agent.communicate(timeout=20)
    assert said in told.decode()


def described(world: World, subject: str) -> dict[str, str]:
    """Ask remit over the bus, as another program does."""
    argv = [
        "dbus-send", "--session", "--print-reply", "--dest=dev.remit.Broker1", "/dev/remit/Broker1",
        "dev.remit.Broker1.Actors.Describe", f"string:{subject}",
    ]  # fmt: skip
    code, out, err = world.human(*argv)
    assert code == 0, err
    return dict(re.findall(r'string "(\w+)"\s+variant\s+string "(.*)"', out))


SENDER = """
import asyncio, sys
from dbus_next.aio import MessageBus
async def main():
    bus = await MessageBus().connect()
    print(bus.unique_name, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""


def test_a_program_is_told_who_calls_it(world: World) -> None:
    """Two connections, a person's and an agent's, that look alike to the bus: same user, same kind of program."""
    arena = world.arena
    until(lambda: world.human("dbus-send", "--session", "--print-reply", "--dest=dev.remit.Broker1", "/dev/remit/Broker1", "org.freedesktop.DBus.Introspectable.Introspect")[0] == 0, 10)  # fmt: skip
    script = Path(arena.home, "readonly/sender.py")
    script.write_text(SENDER)
    arena._own(arena.home + "/readonly")
    mine = arena.popen(
        [sys.executable, str(script)], env=world.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    argv = arena.remit_run("/usr/bin/env", "-u", "PYTHONPATH", sys.executable, str(script), agent="toy")
    agents = arena.popen(argv, env=world.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        names = []
        for process in (mine, agents):
            assert process.stdout is not None
            names.append(process.stdout.readline().decode().strip())
        for _ in range(20):
            unknown = {"agent": "", "session": "", "assurance": "", "note": ""}
            assert described(world, names[0]) == {"actor": "human"} | unknown
            found = described(world, names[1])
            assert (found["actor"], found["agent"], found["assurance"]) == ("agent", "toy", "L3")
        code, out, err = world.arena.communicate(arena.remit("who", names[1]))
        assert code == 0, err
        assert "agent toy/" in out
        assert "(L3: started by remit)" in out
        code, out, err = arena.communicate(arena.remit("adopt", str(mine.pid), "--agent", "helper"))
        assert code == 0, err
        assert "unconfined: it says so itself, nothing holds it" in out
        found = described(world, names[0])
        assert (found["actor"], found["agent"], found["session"]) == ("agent", "helper", "")
        assert (found["assurance"], "nothing holds it" in found["note"]) == (
            "L1",
            True,
        )  # its script is known now
        for subject in (names[0], str(mine.pid)):
            code, out, err = arena.communicate(arena.remit("who", subject))
            assert "agent helper (L1:" in out, err
            assert "unconfined" in out
        path = arena.project + "/told-over-the-bus"
        code, _, err = arena.communicate(
            arena.remit_run("/bin/sh", "-c", f"echo agent > {path}", agent="toy")
        )
        assert code == 0, err
        os.rename(path, path + ".moved")
        found = described(world, path + ".moved")
        assert (found["actor"], found["agent"], found["basis"]) == ("agent", "toy", "object")
    finally:
        for process in (mine, agents):
            process.communicate(b"", timeout=10)
    code, _, err = world.human("dbus-send", "--session", "--print-reply", "--dest=dev.remit.Broker1", "/dev/remit/Broker1", "dev.remit.Broker1.Actors.Describe", "string::1.99999")  # fmt: skip
    assert (code, "NameHasNoOwner" in err) == (1, True)
