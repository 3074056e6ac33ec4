"""Which rewrites of ``.git/config`` go through without a question."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit_daemon.supervisor import gitconfig
from remit_daemon.supervisor.resolve import Pin, Place

PLAIN = """[core]
\trepositoryformatversion = 0
\tfilemode = true
[remote "origin"]
\turl = https://example.org/a.git
\tfetch = +refs/heads/*:refs/remotes/origin/*
[branch "main"]
\tremote = origin
\tmerge = refs/heads/main
"""


@pytest.fixture
def git(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / ".git").mkdir()
    return tmp_path / ".git"


def attempt(git: Path, new: str, old: str | None = None) -> bool:
    """Rename a lock with ``new`` onto the configuration as git does; says whether it was done without a question."""
    (git / "config.lock").write_text(new)
    if old is not None:
        (git / "config").write_text(old)
    places = [Place(Pin(os.open(git, os.O_PATH)), name, False) for name in (b"config.lock", b"config")]
    try:
        st = places[0].stat()
        assert st is not None
        put = gitconfig.replaces(*places, st, places[1].stat())
        if put is None:
            return False
        put()
    finally:
        for place in places:
            place.close()
    assert (git / "config").read_text() == new
    assert sorted(p.name for p in git.iterdir()) == ["config"]
    return True


def test_what_git_writes_by_itself_goes_through(git: Path) -> None:
    assert attempt(git, PLAIN)
    assert attempt(git, PLAIN + "[user]\n\tname = A B\n", PLAIN)


def test_a_key_that_was_there_may_stay(git: Path) -> None:
    old = PLAIN + "[core]\n\teditor = vim\n"
    assert attempt(git, old + '[branch "x"]\n\tremote = origin\n', old)


@pytest.mark.parametrize(
    "more",
    [
        "[core]\n\tfsmonitor = ./evil\n",
        "[core]\n\thooksPath = /tmp/h\n",
        "[CORE]\n\tSSHCommand = evil\n",
        "[core] fsmonitor = evil\n",
        "[core]fsmonitor=evil\n",
        "[alias]\n\tst = !evil\n",
        '[filter "x"]\n\tclean = evil\n',
        '[diff "x"]\n\ttextconv = evil\n',
        "[include]\n\tpath = ../evil\n",
        '[includeIf "gitdir:."]\n\tpath = ../evil\n',
        "[credential]\n\thelper = !evil\n",
        "[gpg]\n\tprogram = evil\n",
        '[remote "o"]\n\turl = ext::sh -c evil\n',
        '[remote "o"]\n\turl = "ext::sh -c evil"\n',
        '[remote "o"]\n\tvcs = evil\n',
        "[core]\n\tfilemode = true\\\n\n\tfsmonitor = evil\n",
        '[user]\n\tname = "a\\\n"\n[core]\n\tpager = evil\n',
        '[core "x"]\n\tfilemode = 1\n[core.y]\n\tfsmonitor = e\n',
        "\ufeff[core]\n\tfsmonitor = evil\n",
        "[extensions]\n\tworktreeConfig = true\n",
        "fsmonitor = evil\n",
    ],
)
def test_anything_that_could_run_something_is_asked_about(git: Path, more: str) -> None:
    assert not attempt(git, PLAIN + more, PLAIN)
    assert (git / "config").read_text() == PLAIN


def test_the_lock_s_holder_cannot_write_into_what_was_checked(git: Path) -> None:
    (git / "config.lock").write_text(PLAIN)
    with (git / "config.lock").open("a") as kept:
        assert attempt(git, PLAIN)
        kept.write("[core]\n\tfsmonitor = evil\n")
    assert "evil" not in (git / "config").read_text()


def test_elsewhere_a_config_is_a_file_like_any_other(tmp_path: Path) -> None:
    assert not attempt(tmp_path, PLAIN)
