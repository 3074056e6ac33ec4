"""What a newcomer sees first: help that fits, and complaints that name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit_daemon.cli import commands, key_cmd, main, token_cmd
from remit_daemon.cli.options import Parser, Wrong
from remit_daemon.cli.policy_cmd import USAGE as POLICY_USAGE
from remit_daemon.supervisor.run import HELP, HelpAsked, parse


def test_the_first_help_fits_a_small_terminal_below_a_prompt() -> None:
    assert len(main.USAGE.splitlines()) <= 23
    for text in (main.USAGE, HELP, POLICY_USAGE):
        assert max(map(len, text.splitlines())) <= 80


def test_the_first_help_names_every_command() -> None:
    named = main.USAGE.replace(",", " ").split()
    others = {"run", "tui", "policy", "token", "key", "hook", "agent", "adopt", "doctor", "daemon"}
    assert {*commands.COMMANDS, *others} <= set(named)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_each_command_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(name, ["--help"], json_out=False) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: remit {name}")
    assert "--json" in said
    assert len(said.split("\n\n")[1]) > 10


@pytest.mark.parametrize(
    "args", [["log", "--limt", "3"], ["log", "--limt=3"], ["token", "issue", "--limt"], ["key", "list", "--limt"]]
)  # fmt: skip
def test_an_unknown_option_is_what_is_complained_of(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = args
    run = {"token": token_cmd.run, "key": key_cmd.run}.get(name)
    status = run(rest, json_out=False) if run else commands.run(name, rest, json_out=False)
    assert status == 2
    assert f"remit {name}: unknown option --limt\n" in capsys.readouterr().err


def test_a_value_that_looks_like_an_option_after_two_dashes_is_a_value() -> None:
    p = Parser(prog="x")
    p.add_argument("word")
    assert p.parse_args(["--", "--this"]).word == "--this"
    with pytest.raises(Wrong, match="unknown option --this"):
        p.parse_args(["--this"])


def test_help_of_run_is_asked_for_before_the_command_only() -> None:
    with pytest.raises(HelpAsked):
        parse(["--agent", "x", "--help"])
    assert parse(["--", "ls", "--help"]).command == ["ls", "--help"]
    assert parse(["ls", "--help"]).command == ["ls", "--help"]


def test_days_are_times_too() -> None:
    now = 1_700_000_000.0
    assert commands.moment("yesterday", now) < commands.moment("today", now) <= now
    assert 82_000 < commands.moment("today", now) - commands.moment("yesterday", now) < 91_000


@pytest.mark.parametrize(("name", "status"), [("run", 125), ("policy", 2), ("who", 2)])
def test_a_directory_that_is_gone_is_said_to_be(
    name: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr("sys.argv", ["remit", name, "check"])
    assert main.main() == status
    assert "is no longer there" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
