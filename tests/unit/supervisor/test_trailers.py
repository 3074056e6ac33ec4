from __future__ import annotations

import os
from pathlib import Path

from remit_daemon.supervisor import trailers


def test_what_the_person_set_for_git_stays(tmp_path: Path) -> None:
    env = {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "a.b"}
    made = trailers.make(str(tmp_path / "hooks"), env, "claude", "s1")
    assert made == {
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_2": "core.hooksPath",
        "GIT_CONFIG_VALUE_2": str(tmp_path / "hooks"),
    }
    assert "GIT_CONFIG_COUNT=2 git" in (tmp_path / "hooks/commit-msg").read_text()
    assert all(os.access(tmp_path / "hooks" / name, os.X_OK) for name in trailers.HOOKS)


def test_what_a_shell_would_read_otherwise_makes_no_hook(tmp_path: Path) -> None:
    for agent, count in (("a;b", "0"), ("$(x)", "0"), ('"', "0"), ("claude", "x"), ("claude", "-1")):
        assert trailers.make(str(tmp_path / "hooks"), {"GIT_CONFIG_COUNT": count}, agent, "s1") == {}
        assert not (tmp_path / "hooks").exists()


def test_a_directory_that_cannot_be_made_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    assert trailers.make(str(tmp_path / "hooks"), {}, "claude", "s1") == {}
