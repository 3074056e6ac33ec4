"""What policy has an agent's program started with."""

from __future__ import annotations

import pytest

from remit_policy.document import PolicyError, Source
from remit_policy.layers import PolicySet, packs
from remit_policy.model import PROJECT, USER, Snapshot, dumps, loads
from remit_policy.reading import read_document
from remit_policy.rules import check_references

SANDBOX_OFF = ("-c", 'sandbox_mode="danger-full-access"')


def source(text: str) -> Source:
    return read_document("mine.toml", b"version = 1\n" + text.encode())


def snapshot(agent: str, program: str, mine: str = "") -> Snapshot:
    sources = packs() + ([(USER, source(mine))] if mine else [])
    made = PolicySet(sources).snapshot(agent, "/usr/bin/x", "", {"PROJECT": "/home/a/p"}, program=program)
    return loads(dumps(made))


def test_codex_is_started_with_its_sandbox_off() -> None:
    assert snapshot("codex", "codex").arguments == SANDBOX_OFF


@pytest.mark.parametrize("program", ["bash", "npx", "node", ""])
def test_a_wrapper_is_not_given_the_arguments_of_what_it_starts(program: str) -> None:
    assert snapshot("codex", program).arguments == ()


def test_an_agent_that_no_pack_knows_is_started_as_it_is() -> None:
    made = snapshot("unknown", "unknown")
    assert (made.arguments, made.env) == ((), {})


def test_variables_hold_for_a_wrapper_too() -> None:
    assert snapshot("gemini", "bash").env == {"GEMINI_SANDBOX": "false"}


def test_the_persons_own_come_after_the_packs() -> None:
    mine = """[agent.codex]
roles = ["default"]
arguments = ["--sandbox", "a b\\tc"]
env = { A = "1" }
"""
    made = snapshot("codex", "codex", mine)
    assert made.arguments == (*SANDBOX_OFF, "--sandbox", "a b\tc")
    assert made.env == {"A": "1"}


@pytest.mark.parametrize(
    "line", ['env = { "A B" = "1" }', 'env = { A = "x\\u0000" }', 'arguments = ["\\u0000"]']
)
def test_what_exec_could_not_be_given_is_an_error(line: str) -> None:
    with pytest.raises(PolicyError):
        source(f'[agent.x]\nroles = ["default"]\n{line}\n')


def test_a_projects_own_policy_starts_nothing() -> None:
    mine = source('[agent.codex]\nroles = ["default"]\nenv = { A = "1" }\n')
    assert [p.message for p in check_references([*packs(), (PROJECT, mine)])] == [
        "env of an agent in a project's policy"
    ]


def test_trailers_are_left_out_when_the_person_says_so() -> None:
    mine = '[agent.codex]\nroles = ["default"]\ntrailers = false\n'
    assert snapshot("codex", "codex").trailers
    assert not snapshot("codex", "bash", mine).trailers
    assert snapshot("claude", "claude", mine).trailers


def test_a_section_without_roles_leaves_the_agent_those_that_it_has() -> None:
    def roles(agent: str, mine: str) -> list[str]:
        return PolicySet([*packs(), (USER, source(mine))]).roles(agent)

    limits = "[agent.{}.limits]\ncalls = '2000/h'\n"
    assert roles("codex", limits.format("codex")) == roles("codex", "")
    assert "codex" in roles("codex", "")
    assert "default" in roles("mine", limits.format("mine"))
    assert "codex" not in roles("codex", "[agent.codex]\nroles = ['reader']\n[role.reader]\n")
