"""What policy says of tokens: which scopes an agent may have, and roles of scopes that files define."""

from __future__ import annotations

from remit_policy.document import Source
from remit_policy.engine import Engine
from remit_policy.layers import PolicySet, packs
from remit_policy.model import ADMIN, ALLOW, ASK, DENY, PROJECT, USER, dumps, loads
from remit_policy.reading import read_document
from remit_policy.rules import check_references
from remit_policy.scoperoles import scope_roles
from remit_policy.scopes import ROLES, SCOPES, expand

AGENT = "[agent.x]\nroles = ['mine']\n"


def source(text: str, name: str = "mine.toml") -> Source:
    return read_document(name, b"version = 1\n" + text.encode())


def verdicts(*files: tuple[int, str]) -> dict[str, int]:
    sources = packs() + [(layer, source(text, f"{n}.toml")) for n, (layer, text) in enumerate(files)]
    assert check_references(sources) == []
    made = PolicySet(sources).snapshot("x", "/usr/bin/x", "", {"PROJECT": "/home/a/p"})
    engine = Engine(loads(dumps(made)))
    return {scope: engine.decide("use", f"token:{scope}").verdict for scope in SCOPES}


def test_a_session_has_what_an_operator_has_and_is_asked_for_the_rest() -> None:
    assert verdicts() == {s: ALLOW if s in ROLES["operator"] else ASK for s in SCOPES}


def test_a_role_of_scopes_stands_for_all_that_it_inherits() -> None:
    text = (
        AGENT
        + "[scopes.watch]\ninherits=['look']\nscopes=['log:read']\n[scopes.look]\ninherits=['auditor']\n"
    )
    found = verdicts(
        (USER, text + "[role.mine.tokens]\nuse = { allow = ['watch'], deny = ['exec:run'] }\n")
    )
    assert {s for s, v in found.items() if v == ALLOW} == {*ROLES["operator"], *ROLES["auditor"]} - {
        "exec:run"
    }
    assert found["exec:run"] == DENY
    assert expand(["look"], scope_roles([(USER, source(text))])) == set(ROLES["auditor"])


def test_an_administrator_grants_what_is_sensitive_and_closes_what_he_likes() -> None:
    text = "[agent.x]\nroles = ['ruled']\n[role.ruled.tokens]\nuse = { allow = ['admin'], deny = ['files:delete'] }\n"
    found = verdicts(
        (ADMIN, text), (USER, AGENT + "[role.mine.tokens]\nuse = { allow = ['files:delete'] }\n")
    )
    assert (found["grants:revoke"], found["files:delete"]) == (ALLOW, DENY)


def test_nobody_adds_to_a_role_that_another_file_defines() -> None:
    ours = source("[scopes.ops]\nscopes = ['log:read']\n", "admin.toml")
    mine = source("[scopes.ops]\nscopes = ['grants:revoke']\n")
    for order in ([(ADMIN, ours), (USER, mine)], [(USER, mine), (ADMIN, ours)]):
        (problem,) = check_references(order)
        assert (
            str(problem) == "mine.toml:2:1: 'ops' is defined in admin.toml:2 already; expected another name"
        )


def test_a_project_defines_and_allows_nothing() -> None:
    (problem,) = check_references([(PROJECT, source("[scopes.ops]\nscopes = ['log:read']\n"))])
    assert "in a project's policy" in str(problem)
