"""Which agents' grants wait when their program has changed: the strictest section that is about the agent says."""

from __future__ import annotations

from pathlib import Path

from remit_policy.layers import PolicyDirs, load, packs
from remit_policy.model import PROJECT
from remit_policy.reading import read_document
from remit_policy.rules import asks_on_change, check_references

ASK = 'version = 1\n[agent.claude]\nmatch = {{ name = "claude*"{more} }}\nroles = ["default"]\non_change = "{word}"\n'


def asks(tmp_path: Path, name: str, *texts: str) -> bool:
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.toml").write_text(text)
    found = load(PolicyDirs(admin="", user=str(tmp_path)), None)
    assert not found.problems
    return asks_on_change(found.sources, name, "/usr/bin/claude", {})


def test_nobody_is_asked_unless_a_policy_says_so(tmp_path: Path) -> None:
    assert not asks(tmp_path, "claude")


def test_the_strictest_section_decides(tmp_path: Path) -> None:
    both = [ASK.format(more="", word=word) for word in ("keep", "ask")]
    assert asks(tmp_path, "claude-2", *both)
    assert not asks(tmp_path, "codex", *both)


def test_a_section_about_one_digest_is_about_the_program_that_replaces_it(tmp_path: Path) -> None:
    """Else it would end to apply just when it is needed."""
    assert asks(tmp_path, "claude", ASK.format(more=', sha256 = "' + "a" * 64 + '"', word="ask"))


def test_a_project_does_not_say() -> None:
    text = b'version = 1\n[agent.claude]\nroles = ["default"]\non_change = "keep"\n'
    problems = check_references([*packs(), (PROJECT, read_document(".remit.toml", text))])
    assert [p.message for p in problems] == ["on_change of an agent in a project's policy"]
