"""What ``remit policy`` says of hosts, requests, apps and secrets, as a person types them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from remit_daemon.cli import policy_cmd
from remit_daemon.cli.policy_cmd import hit_lines

README = Path(__file__).parents[3] / "README.md"
POLICY = """
version = 1
[agent.toy]
match = { name = "toy" }
roles = ["r"]
[role.r.net]
connect = { allow = ["pypi.org:443"] }
listen = { ask = ["0.0.0.0:8000"] }
[role.r.net."api.github.com"]
GET = { allow = ["/repos/**"] }
POST = { ask = ["/repos/**"] }
[secret.github]
from = { env = "TOKEN" }
env = "GITHUB_TOKEN"
hosts = ["api.github.com"]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def policy(home: Path) -> Path:
    place = home / "config/remit/policy.d"
    place.mkdir(parents=True)
    (place / "mine.toml").write_text(POLICY)
    return place / "mine.toml"


def test_the_example_of_the_readme_has_no_faults(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", README.read_text(), re.S)
    (home / "config/remit/policy.d").mkdir(parents=True)
    (home / "config/remit/policy.d/mine.toml").write_text(example)
    (home / ".config").mkdir()
    (home / ".config/github-token").write_text("x")
    assert policy_cmd.run(["check"]) == policy_cmd.OK
    said = capsys.readouterr()
    assert "0 warnings" in said.out
    assert not said.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[role.r.net."x.org"]\nGTE = { allow = ["/"] }', "'GTE' is no usual method; expected GET"),
        ('[role.r.net."x.org"]\nGET = { allow = ["/a?b=c"] }', "has a query"),
        ('[agent.claude]\nroles = ["r"]', "without the built-in role 'claude'"),
        ('[role.r.net]\nconnect = { allow = ["*x.org"] }', "covers 'xx.org' as well"),
        ('[role.r.secrets]\nuse = { deny = ["nosuch"] }', "there is no secret 'nosuch'"),
        ('[secret.s]\nfrom = { file = "~/no" }\nenv = "E"\nhosts = ["x.org"]', "there is no file"),
        (
            '[secret.s]\nfrom = { env = "NO_SUCH_V" }\nenv = "E"\nhosts = ["x.org"]',
            "'NO_SUCH_V' is not set here",
        ),
        (
            '[secret.s]\nfrom = { command = ["no-such-p"] }\nenv = "E"\nhosts = ["x.org"]',
            "no program 'no-such-p'",
        ),
        ('[secret.s]\nfrom = { command = ["true"] }\nenv = "E"\nhosts = ["*"]', "to every host"),
    ],
)
def test_what_was_hardly_meant_is_warned_about(
    text: str, said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "x.toml"
    path.write_text(f'version = 1\n[agent.a]\nroles = ["r"]\n[role.r]\n{text}\n')
    assert policy_cmd.run(["check", str(path)]) == policy_cmd.OK
    (line,) = capsys.readouterr().err.splitlines()
    assert "warning" in line
    assert said in line


def test_two_methods_at_one_host_are_not_the_same_rule_twice(
    policy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "x")
    assert policy_cmd.run(["check"]) == policy_cmd.OK
    assert not capsys.readouterr().err


def _why(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    policy_cmd.run(["why", "toy", *words], json_out=True)
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("policy")
def test_a_request_to_a_host_without_rules_for_requests_is_its_connection(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = _why(capsys, "request", "GET https://pypi.org/simple/")
    assert (found["op"], found["resource"], found["verdict"]) == ("connect", "pypi.org:443", "allow")
    assert "connection" in str(found["note"])
    found = _why(capsys, "request", "POST https://api.github.com/repos/x")
    assert (found["op"], found["verdict"]) == ("request", "ask")
    assert "note" not in found


@pytest.mark.usefixtures("policy")
def test_listening_on_every_address_is_not_listening_to_this_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _why(capsys, "listen", "localhost:8000")["verdict"] == "allow"
    for spelling in ("0.0.0.0:8000", "[::]:8000", "*:8000"):
        found = _why(capsys, "listen", spelling)
        assert found["verdict"] == "ask", spelling
        assert found["source"] != "default", spelling


@pytest.mark.usefixtures("policy")
def test_apps_and_secrets_are_known_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert _why(capsys, "use", "screen")["resource"] == "app:screen"
    assert _why(capsys, "use", "secret:github")["verdict"] == "allow"
    assert "github" in str(_why(capsys, "use", "secret:githbu")["note"])
    assert policy_cmd.run(["why", "toy", "use", "app:screeen"]) == policy_cmd.WRONG
    assert "screen, input" in capsys.readouterr().err


@pytest.mark.usefixtures("policy")
def test_a_socket_is_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = _why(capsys, "connect", "/tmp/.X11-unix/X0")
    assert (found["op"], found["resource"], found["verdict"]) == ("use", "app:screen", "ask")
    found = _why(capsys, "connect", "/run/docker.sock")
    assert found["verdict"] == "deny"
    assert "helper" in str(found["source"])
    assert _why(capsys, "connect", "~/some.sock")["verdict"] == "ask"


@pytest.mark.parametrize(
    ("op", "text"),
    [
        ("connect", "localhost:99999"),
        ("connect", "http://pypi.org/"),
        ("request", "GET api.github.com/repos"),
        ("call", "org.freedesktop.secrets"),
    ],
)
@pytest.mark.usefixtures("policy")
def test_what_is_no_resource_is_told_in_one_line(
    op: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert policy_cmd.run(["why", "toy", op, text]) == policy_cmd.WRONG
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"'{text}'" in said
    assert "expected" in said


@pytest.mark.usefixtures("policy")
def test_show_lists_what_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert policy_cmd.run(["show", "toy"]) == policy_cmd.OK
    said = capsys.readouterr().out
    assert "allow request GET api.github.com/repos/**" in said
    assert "connect GET" not in said
    assert "network by rules" in said


@pytest.mark.usefixtures("policy")
def test_cases_are_decided_as_why_decides_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = home / "cases.toml"
    cases.write_text(
        '[[case]]\nagent = "toy"\nop = "request"\npath = "GET https://pypi.org/simple/"\nexpect = "allow"\n'
        '[[case]]\nagent = "toy"\nop = "connect"\npath = "/run/docker.sock"\nexpect = "deny"\n'
    )
    assert policy_cmd.run(["test", str(cases)]) == policy_cmd.OK
    assert "2 of 2 cases hold" in capsys.readouterr().out


def test_diff_says_what_a_change_of_a_file_means(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "config/remit/policy.d"
    folder.mkdir(parents=True)
    (folder / "toy.toml").write_text(POLICY)
    fresh = home / "toy.toml"
    fresh.write_text(POLICY)
    assert policy_cmd.run(["diff", str(fresh)]) == 0
    assert "nothing is decided otherwise" in capsys.readouterr().out
    fresh.write_text(POLICY.replace("pypi.org:443", "pypi.org").replace("POST = { ask", "POST = { deny"))
    assert policy_cmd.run(["diff", str(fresh)]) == 1
    out = capsys.readouterr().out
    assert "agent toy:" in out
    assert "looser    connect pypi.org: ask -> allow" in out
    assert "stricter  request POST api.github.com/repos/**: ask -> deny" in out
    fresh.write_text(POLICY.replace('roles = ["r"]', 'roles = ["nobody"]'))
    assert policy_cmd.run(["diff", str(fresh)]) == 2


def test_hits_are_of_a_line_of_a_file_and_told_once() -> None:
    def rule(op: str, text: str, hits: int = 7, source: str = "f:1") -> dict[str, Any]:
        return {
            "verdict": "allow", "op": op, "text": text, "hits": hits, "source": source, "layer": "user"
        }  # fmt: skip

    rules = [rule(op, text) for op in ("read", "write") for text in "abcd"]
    found = hit_lines([*rules, rule("read", "z", 1, "f:2"), rule("read", "never", 0, "f:3")])
    assert [" ".join(line.split()) for line in found] == [
        "7 allow read, write a b c and 1 more (user, f:1)",
        "1 allow read z (user, f:2)",
    ]
