"""Deno's permission broker: its permissions in remit's terms, its wire, and the real deno where there is one (REMIT_DENO)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from typing import Any

import pytest

from fakes.machine import Machine
from remit_daemon.runtime.deno import Ask, Said, fitting, meaning

POLICY = """
version = 1
[agent.all]
match = { name = "*" }
roles = ["deno"]
[role.deno.files]
read = { allow = ["ROOT/project/**"], deny = ["ROOT/project/secret/**"] }
list = { allow = ["ROOT/project/**"] }
write = { allow = ["ROOT/project/**"], deny = ["ROOT/project/secret/**"] }
create = { allow = ["ROOT/project/**"] }
delete = { deny = ["ROOT/project/kept"] }
metadata = { allow = ["ROOT/project/**"] }
[role.deno.net]
connect = { allow = ["ok.example:443", "localhost:9"], deny = ["no.example"] }
listen = { deny = ["localhost:9"] }
[role.deno.secrets]
use = { allow = ["MY_TOKEN"], deny = ["OTHER_TOKEN", "environment"] }
"""


@pytest.mark.parametrize(
    ("permission", "value", "wanted"),
    [
        ("read", "/a", Ask(("read",), "/a", True)),
        ("write", "a", Ask(("write",), "a", True)),
        ("ffi", "/l.so", Ask(("ffi",), "/l.so", True)),
        ("net", "example.org:443", Ask(("connect",), "example.org:443")),
        ("net", "127.0.0.1:80", Ask(("connect", "listen"), "127.0.0.1:80")),
        ("net", "localhost:80", Ask(("connect", "listen"), "localhost:80")),
        ("net", "[::1]:80", Ask(("connect", "listen"), "[::1]:80")),
        ("net", "0.0.0.0:80", Ask(("listen",), "0.0.0.0:80")),
        ("net", "unix:/run/x.sock", Ask(("connect",), "/run/x.sock", True)),
        ("import", "jsr.io:443", Ask(("connect",), "jsr.io:443")),
        ("run", None, Ask(("exec",), "/")),
        ("run", "/bin/true", Ask(("exec",), "/bin/true", True)),
        ("env", "HOME", Said(True)),
        ("env", "GITHUB_TOKEN", Ask(("use",), "secret:GITHUB_TOKEN")),
        ("env", None, Ask(("use",), "secret:environment")),
        ("sys", "hostname", Said(True)),
    ],
)
def test_permissions_in_our_terms(permission: str, value: str | None, wanted: object) -> None:
    assert meaning(permission, value) == wanted


@pytest.mark.parametrize(
    ("permission", "value"),
    [
        ("read", None), ("write", None), ("net", None), ("ffi", None), ("import", None), ("net", "example.org"),
        ("net", "vsock:1:2"), ("net", ""), ("run", "git"), ("hrtime", None), ("", "x"), ("all", None),
    ],
)  # fmt: skip
def test_what_is_not_known_or_is_everything_is_refused(permission: str, value: str | None) -> None:
    found = meaning(permission, value)
    assert isinstance(found, Said)
    assert not found.allow
    assert found.reason


def test_operations_by_what_is_there(tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    there, place, absent = str(tmp_path / "file"), str(tmp_path), str(tmp_path / "none")
    assert [fitting("read", p) for p in (there, place, absent)] == [("read",), ("list",), ("read",)]
    assert [fitting("write", p) for p in (there, place, absent)] == [
        ("metadata", "write", "delete"), ("metadata", "delete"), ("write", "create"),
    ]  # fmt: skip
    assert fitting("ffi", there) == ("read", "execute")
    assert fitting("connect", there) == ("connect",)


@pytest.fixture
def ready(machine: Machine) -> Machine:
    machine.policy(POLICY.replace("ROOT", machine.root))
    machine.person().call("reload")
    os.makedirs(f"{machine.root}/project/secret")
    for name in ("a.txt", "kept", "secret/key"):
        with open(f"{machine.root}/project/{name}", "w") as f:
            f.write(name)
    os.symlink("secret/key", f"{machine.root}/project/link")
    return machine


class Asker:
    def __init__(self, machine: Machine) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(machine.paths.deno)
        self.lines = self.sock.makefile("rb")
        self.number = 0

    def ask(self, permission: str, value: str | None, **more: Any) -> dict[str, Any]:
        self.number += 1
        question = {
            "v": 1,
            "pid": 1,
            "id": self.number,
            "datetime": "",
            "permission": permission,
            "value": value,
        }
        self.sock.sendall(json.dumps(question | more).encode() + b"\n")
        answer = dict(json.loads(self.lines.readline()))
        assert answer["id"] == self.number
        return answer


def test_answers_over_the_wire(ready: Machine) -> None:
    asker, project = Asker(ready), ready.root + "/project"
    for permission, value, result in (
        ("read", project + "/a.txt", "allow"),
        ("read", project, "allow"),
        ("read", os.path.relpath(project + "/a.txt"), "allow"),
        ("read", project + "/secret/key", "deny"),
        ("read", project + "/link", "deny"),
        ("read", project + "/secret/../secret/key", "deny"),
        ("write", project + "/new", "allow"),
        ("write", project + "/kept", "deny"),
        ("net", "ok.example:443", "allow"),
        ("net", "no.example:443", "deny"),
        ("net", "localhost:9", "deny"),
        ("import", "ok.example:443", "allow"),
        ("env", "HOME", "allow"),
        ("env", "MY_TOKEN", "allow"),
        ("env", "OTHER_TOKEN", "deny"),
        ("env", None, "deny"),
        ("read", None, "deny"),
        ("fly", "x", "deny"),
        ("read", "a\0b", "deny"),
    ):
        found = asker.ask(permission, value)
        assert found["result"] == result, (permission, value, found)
        assert ("reason" in found) is (result == "deny")
    assert asker.ask("read", project + "/a.txt", v=2)["result"] == "deny"
    person = ready.person()
    (session,) = person.call("sessions")
    assert not session["confined"]
    rows = [r for r in person.call("log", session=session["id"]) if "asked by Deno" in r["note"]]
    assert {(r["op"], r["outcome"]) for r in rows} >= {
        ("read", "ok"),
        ("read", "refused"),
        ("connect", "ok"),
    }


@pytest.mark.parametrize(
    "line", [b"x\n", b"[]\n", b"{}\n", b'{"v":1,"id":"1","permission":"read","value":"x"}\n',
             b'{"v":1,"id":1,"permission":"read","value":7}\n', b"[" * (1 << 17), b"[" * 60_000 + b"\n"], ids=range(7)
)  # fmt: skip
def test_nonsense_ends_the_connection_and_allows_nothing(ready: Machine, line: bytes) -> None:
    asker = Asker(ready)
    try:
        asker.sock.sendall(line)
        assert asker.lines.readline() == b""
    except ConnectionError:
        pass


def test_a_program_inside_a_session_is_not_served(ready: Machine) -> None:
    supervisor = ready.supervisor()
    supervisor.connect()  # this process is one now
    asker = Asker(ready)
    with pytest.raises((ConnectionError, ValueError)):
        asker.ask("read", ready.root + "/project/a.txt")


SCRIPT = """
const t = async (n: string, f: () => unknown) => {
  try { await f(); console.log(n, "done"); } catch (e) { console.log(n, (e as Error).name, (e as Error).message.split("\\n")[0]); }
};
await t("read", () => Deno.readTextFileSync("a.txt"));
await t("secret", () => Deno.readTextFileSync("link"));
await t("write", () => Deno.writeTextFileSync("new", "x"));
await t("kept", () => Deno.removeSync("kept"));
await t("net", () => Deno.connect({hostname: "no.example", port: 443}));
await t("home", () => Deno.env.get("HOME"));
await t("token", () => Deno.env.get("OTHER_TOKEN"));
await t("sys", () => Deno.hostname());
"""


DENO = shutil.which(os.environ.get("REMIT_DENO", "deno"))
if DENO:  # npm has one, of some 90 MB; REMIT_DENO names it

    def test_the_real_deno(ready: Machine) -> None:
        project = ready.root + "/project"
        with open(project + "/main.ts", "w") as f:
            f.write(SCRIPT)
        env = ready.env | {
            "DENO_PERMISSION_BROKER_PATH": ready.paths.deno, "DENO_DIR": ready.root + "/deno", "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1",
        }  # fmt: skip
        found = subprocess.run(
            [DENO, "run", "main.ts"],
            cwd=project,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        said = {line.split()[0]: line.split(None, 1)[1] for line in found.stdout.splitlines()}
        assert [n for n, text in said.items() if text == "done"] == ["read", "write", "home", "sys"], (
            found.stdout
        )
        assert all("NotCapable remit:" in said[n] for n in ("secret", "kept", "net", "token")), found.stdout
        assert os.path.exists(project + "/kept")
