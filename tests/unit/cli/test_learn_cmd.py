"""A file of learning's own takes nothing away that the packs gave."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit_daemon.cli.learn_cmd import _known, _replace
from remit_daemon.cli.policy_cmd import policy_dirs, variables
from remit_policy.engine import Engine
from remit_policy.layers import load
from remit_policy.learned import Entry, render
from remit_policy.model import ALLOW


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "remit/policy.d"


@pytest.mark.parametrize(("agent", "roles"), [("claude", ["claude"]), ("my.own", ["default"])])
def test_the_packs_roles_stay(folder: Path, agent: str, roles: list[str]) -> None:
    path = f"{folder}/learned-{agent}.toml"
    others = load(policy_dirs())
    before = others.roles(agent)
    found, entries = _known(path, agent, others)
    assert (found, entries) == (roles, [])
    assert _replace(path, render(agent, found, [Entry("read", "/srv/notes/*.md", "1x")]), others)
    fresh = load(policy_dirs())
    assert fresh.problems == []
    assert set(fresh.roles(agent)) == {*before, f"learned-{agent}"}
    engine = Engine(fresh.snapshot(agent, "", "", variables("/")))
    assert engine.decide("read", "/srv/notes/a.md").verdict == ALLOW
    again, kept = _known(path, agent, fresh)
    assert (again, [e.pattern for e in kept]) == (roles, ["/srv/notes/*.md"])


def test_a_section_of_the_persons_own_is_added_to(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "me.toml").write_text('version = 1\n[agent.claude]\nroles = ["mine"]\n[role.mine]\n')
    assert _known(f"{folder}/learned-claude.toml", "claude", load(policy_dirs())) == ([], [])


def test_what_the_loader_refuses_leaves_the_old_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir(parents=True)
    path = folder / "learned-x.toml"
    path.write_text("version = 1\n")
    bad = render("x", ["no-such-role"], [])
    assert not _replace(str(path), bad, load(policy_dirs()))
    assert "no-such-role" in capsys.readouterr().err
    assert path.read_text() == "version = 1\n"
    assert [p.name for p in folder.iterdir()] == ["learned-x.toml"]
