"""The command line and the environment of a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit_daemon.supervisor import launch, run


def test_options_end_at_the_command() -> None:
    options = run.parse(["--agent", "x", "--ask=deny", "--hold", "500ms", "--", "ls", "--json"])
    assert (options.agent, options.ask, options.hold, options.command) == (
        "x",
        "deny",
        0.5,
        ["ls", "--json"],
    )
    assert run.parse(["ls", "--agent", "x"]).command == ["ls", "--agent", "x"]


@pytest.mark.parametrize(
    "args",
    [
        [], ["--"], ["--agent"], ["--agent", "../x", "ls"], ["--ask", "maybe", "ls"], ["--hold", "soon", "ls"],
        ["--hold", "0s", "ls"], ["--hold", "1e9", "ls"], ["--wat", "ls"], ["--hold", "nan", "ls"],
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused(args: list[str]) -> None:
    with pytest.raises(run.UsageError):
        run.parse(args)


def test_what_injects_code_is_scrubbed() -> None:
    given = dict.fromkeys(
        ("LD_PRELOAD", "LD_LIBRARY_PATH", "NODE_OPTIONS", "BASH_ENV", "PYTHONSTARTUP", "PERL5OPT", "REMIT_X", "BASH_FUNC_a%%"), "x"
    )  # fmt: skip
    env = launch.environment(
        {**given, "PATH": "/bin", "PYTHONPATH": "src"},
        {"PATH": "/policy/bin", "TMPDIR": "/policy", "HTTP_PROXY": "policy"},
        "/t",
        "s1",
        "a",
        "/r/agent.sock",
        {"HTTP_PROXY": "p"},
    )
    assert not given.keys() & env.keys()
    assert (env["PATH"], env["PYTHONPATH"], env["TMPDIR"]) == ("/policy/bin", "src", "/t")
    assert (env["XDG_RUNTIME_DIR"], env["HTTP_PROXY"]) == ("/t/run", "p")


def test_what_is_asked_about_can_be_found() -> None:
    given = {
        "XDG_RUNTIME_DIR": "/run/user/7",
        "WAYLAND_DISPLAY": "wayland-0",
        "SSH_AUTH_SOCK": "/tmp/ssh-x/agent.1",
    }
    env = launch.environment(given, {}, "/t", "s1", "a", "/r/agent.sock", {})
    assert env["SSH_AUTH_SOCK"] == "/tmp/ssh-x/agent.1"
    assert env["WAYLAND_DISPLAY"] == "/run/user/7/wayland-0"
    assert (env["PULSE_RUNTIME_PATH"], env["PIPEWIRE_RUNTIME_DIR"]) == ("/run/user/7/pulse", "/run/user/7")
    assert "WAYLAND_DISPLAY" not in launch.environment({}, {}, "/t", "s1", "a", "/r/agent.sock", {})


def test_programs_are_found_as_env_finds_them(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(launch.LaunchError, match="no such program") as e:
        launch.find_program("remit-no-such", os.defpath)
    assert e.value.code == 127
    for name in (str(plain), str(tmp_path)):
        with pytest.raises(launch.LaunchError) as e:
            launch.find_program(name, "")
        assert e.value.code == 126
    assert launch.find_program("sh", "/nonexistent:/bin") == "/bin/sh"


def test_a_program_brings_its_installation(tmp_path: Path) -> None:
    package = tmp_path / "lib" / "node_modules" / "agent"
    (package / "bin").mkdir(parents=True)
    cli = package / "bin" / "cli.js"
    cli.write_text("#!/usr/bin/env node\n")
    found = run.launch_dirs(str(cli), str(cli))
    assert str(tmp_path / "lib" / "node_modules") in found
    assert str(tmp_path) not in found
