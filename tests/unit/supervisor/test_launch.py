"""The command line and the environment of a session."""

from __future__ import annotations

import os
import resource
import sys
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


def test_a_private_directory_goes_with_all_in_it_and_nothing_beside(tmp_path: Path) -> None:
    kept, own = tmp_path / "kept", tmp_path / "own"
    kept.mkdir()
    (kept / "file").write_text("x")
    deep = own / "run/a/b/c"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (own / "run/link").symlink_to(kept)
    (own / "a").symlink_to(kept / "file")
    launch.remove_tree(str(own))
    assert not own.exists()
    assert (kept / "file").read_text() == "x"


def test_a_link_in_the_place_of_a_private_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    (tmp_path / "own").symlink_to(tmp_path / "kept")
    launch.remove_tree(str(tmp_path / "own"))
    launch.remove_tree(str(tmp_path / "absent"))
    assert (tmp_path / "kept/file").read_text() == "x"


def test_a_directory_that_cannot_be_read_stays_and_ends_nothing_else(tmp_path: Path) -> None:
    closed = tmp_path / "own/a/closed"
    closed.mkdir(parents=True)
    (closed / "file").write_text("x")
    (tmp_path / "own/z").write_text("x")
    (tmp_path / "own/a/z").write_text("x")
    closed.chmod(0)
    try:
        launch.remove_tree(str(tmp_path / "own"))
    finally:
        closed.chmod(0o700)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "own",
        "own/a",
        "own/a/closed",
        "own/a/closed/file",
    ]


def test_a_tree_deeper_than_python_recurses_goes(tmp_path: Path) -> None:
    deep = str(tmp_path / "own")
    os.mkdir(deep)
    at = os.open(deep, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit()):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))  # as a session's own
    try:
        launch.remove_tree(deep)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not os.path.lexists(deep)
