"""A credential that the agent uses and never has: what it sees, where the value goes, and where it is nowhere to be found."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.harness import PYTHON, Arena
from system.site import Site, certificate

POLICY = """
[role.probe.net]
connect = {{ allow = ["localhost:{port}", "localhost:{other}"] }}
[secret.by-variable]
from = {{ env = "API_TOKEN" }}
env = "API_TOKEN"
hosts = ["localhost:{port}"]
[secret.by-file]
from = {{ file = "{file}" }}
env = "FILE_TOKEN"
hosts = ["localhost:{port}"]
as = "header:X-Api-Key"
[secret.by-command]
from = {{ command = ["/bin/cat", "{file}.command"] }}
env = "COMMAND_TOKEN"
hosts = ["localhost:{port}"]
as = "basic"
user = "someone"
[secret.nobody]
from = {{ env = "NOBODY_TOKEN" }}
env = "NOBODY_TOKEN"
hosts = ["localhost:{idle}"]
"""


class World:
    """A site, another one, the values, and the person's environment."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        directory = arena.base + "/sites"
        os.mkdir(directory)
        self.authority, server = certificate(directory)
        self.site, self.other, idle = Site(server), Site(server), Site()
        self.idle = idle.port
        idle.close()
        self.values = {n: f"sk-{secrets.token_hex(20)}" for n in ("env", "file", "command", "nobody")}
        file = arena.home + "/.token"
        arena._put(file, self.values["file"] + "\n")
        arena._put(file + ".command", self.values["command"] + "\n")
        for path in (file, file + ".command"):
            arena._own(path)
            os.chown(path, os.stat(arena.home).st_uid, -1)
        ports = {"port": self.site.port, "other": self.other.port, "idle": self.idle}
        arena.write_policy(more=POLICY.format(file=file, **ports))
        self.env = arena.env | {
            "SSL_CERT_FILE": self.authority,
            "CURL_CA_BUNDLE": self.authority,
            "API_TOKEN": self.values["env"],
            "NOBODY_TOKEN": self.values["nobody"],
        }
        self.printed = ""
        checked = arena.communicate(arena.remit("policy", "check"))
        assert checked[0] == 0, checked

    def run(self, *command: str, **kw: Any) -> tuple[int, str, str]:
        argv = self.arena.remit_run("/usr/bin/env", "-u", "PYTHONPATH", *command)
        code, out, err = self.arena.communicate(argv, env=self.env, **kw)
        self.printed += out + err
        return code, out, err

    def sh(self, script: str) -> tuple[int, str, str]:
        return self.run(
            "/bin/sh", "-c", script.replace("SITE", self.site.url).replace("OTHER", self.other.url)
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    arena = Arena()
    made = None
    try:
        arena.write_policy()
        arena.start_daemon()
        made = World(arena)
        yield made
    finally:
        if made:
            made.site.close()
            made.other.close()
        arena.close()


def test_placeholder_has_the_shape_of_the_value(world: World) -> None:
    code, out, err = world.sh("printenv API_TOKEN FILE_TOKEN COMMAND_TOKEN")
    assert code == 0, err
    shown = out.split()
    for value, placeholder in zip(
        (world.values["env"], world.values["file"], world.values["command"]), shown, strict=True
    ):
        assert len(placeholder) == len(value)
        assert placeholder.startswith("sk-")
        assert placeholder != value


@pytest.mark.parametrize(
    ("how", "field", "kind"),
    [
        ('-H "Authorization: Bearer $API_TOKEN"', "Authorization", "env"),
        ('-H "X-Api-Key: $FILE_TOKEN"', "X-Api-Key", "file"),
        ('-u "someone:$COMMAND_TOKEN"', "Authorization", "command"),
    ],
)
def test_value_goes_to_its_host(world: World, how: str, field: str, kind: str) -> None:
    """The server is told the value; the answer, in which it repeats it, has the placeholder again."""
    import base64

    world.site.seen.clear()
    code, out, err = world.sh(f"curl -sSf {how} SITE/headers")
    assert code == 0, err
    came = world.site.seen[-1][2][field]
    if kind == "command":
        came = base64.b64decode(came.split()[1]).decode()
    assert world.values[kind] in came
    if kind != "command":  # its own encoding of the value is not looked for in answers
        assert json.loads(out)[field] != came


@pytest.mark.parametrize(
    "attempt",
    [
        'curl -sS -H "Authorization: Bearer $API_TOKEN" OTHER/headers',
        'curl -sS -H "X-Other: $API_TOKEN" SITE/headers',
        'curl -sS --data-raw "x$API_TOKEN" OTHER/up',
        'curl -sS --data-raw "x$API_TOKEN" SITE/up',
        'curl -sS "SITE/ok?$API_TOKEN"',
        'curl -sS -u "x:$API_TOKEN" SITE/headers',
    ],
)
def test_placeholder_elsewhere_gives_nothing(world: World, attempt: str) -> None:
    """Towards another host, in another place: the value does not go, and where it is seen it is refused and recorded."""
    world.site.seen.clear()
    world.other.seen.clear()
    world.sh(attempt)
    reached = json.dumps(world.site.seen + world.other.seen)
    assert world.values["env"] not in reached
    if "SITE" in attempt:
        assert not world.site.seen or "data" in attempt  # a body is looked at on its way
        code, log, _ = world.arena.communicate(world.arena.remit("denials", "--json"))
        assert code == 0
        assert "by-variable" in log


def test_nobody_inside_serves_at_a_secrets_port(world: World) -> None:
    """The service is not there; a program of the session takes its place and is told nothing."""
    script = f"""
import os, socket, subprocess, sys
took = []
for family, where in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::1")):
    for reuse in (0, 1):
        try:
            s = socket.socket(family)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
            s.bind((where, {world.idle}))
            s.listen()
            took.append(where)
        except OSError:
            pass
print(took)
"""
    code, out, err = world.run(PYTHON, "-c", script)
    assert (code, out) == (0, "[]\n"), err
    script = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print('served')"
    assert world.run(PYTHON, "-c", script)[1] == "served\n"  # any other port is free


def test_value_is_nowhere(world: World) -> None:
    """Not in what the session prints of all that it can read, nor in what remit wrote: logs, ledger, journals."""
    script = r"""
import ctypes, os, re
def look(path):
    try:
        with open(path, "rb") as f:
            return f.read(1 << 22)
    except OSError:
        return b""
found = [os.environb.get(n, b"") for n in (b"API_TOKEN", b"NOBODY_TOKEN")]
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline", "mem", "fd/3"):
        found.append(look(f"/proc/{pid}/{name}"))
for root in (os.environ["TMPDIR"], os.environ["HOME"], os.environ["XDG_RUNTIME_DIR"], "/tmp", "/dev/shm"):
    for place, _, files in os.walk(root):
        found += [look(f"{place}/{n}") for n in files if os.path.isfile(f"{place}/{n}")]
print([m.decode() for m in re.findall(rb"sk-[0-9a-f]{40}", b"\0".join(found))])
"""
    code, _, err = world.sh('curl -sSf -H "Authorization: Bearer $API_TOKEN" SITE/headers')
    assert code == 0, err
    code, _, err = world.run(PYTHON, "-c", script)
    assert code == 0, err
    for value in world.values.values():
        assert value not in world.printed
    for root in (world.arena.home + "/.local/state", world.arena.run_dir, world.arena.project):
        for place, _, files in os.walk(root):
            for name in files:
                path = Path(place, name)
                if path.is_file():
                    content = path.read_bytes()
                    assert not [v for v in world.values.values() if v.encode() in content], path
