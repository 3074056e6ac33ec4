from __future__ import annotations

from pathlib import Path

from remit_policy.engine import Engine
from remit_policy.layers import PolicySet, packs
from remit_policy.links import linked
from remit_policy.model import ALLOW, ASK, DENY, USER, Rule
from remit_policy.reading import read_document


def test_a_deny_and_a_protected_place_hold_where_a_link_leads(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "dotfiles/ssh").mkdir(parents=True)
    (home / "dotfiles/bashrc").write_text("")
    (home / "vault").mkdir()
    (home / ".ssh").symlink_to("dotfiles/ssh")
    (home / ".bashrc").symlink_to("dotfiles/bashrc")
    (home / "secret").symlink_to("vault")
    text = b"""version = 1
[role.default.files]
read = { allow = ["~/**"], deny = ["~/secret/**"] }
write = { allow = ["~/**"] }
"""
    found = PolicySet([*packs(), (USER, read_document("u", text))])
    values = {"HOME": str(home), "PROJECT": str(home / "dotfiles"), "TMPDIR": "/t"}
    engine = Engine(found.snapshot("x", "", "", values))
    assert engine.decide("read", f"{home}/dotfiles/ssh/id_rsa").verdict == ASK
    assert engine.decide("write", f"{home}/dotfiles/bashrc").verdict == ASK
    assert engine.decide("read", f"{home}/vault/x").verdict == DENY
    assert engine.decide("read", f"{home}/dotfiles/notes").verdict == ALLOW


def test_only_strict_rules_follow_links(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "from").symlink_to("to")
    pattern = f"{tmp_path}/from/**"
    rules = [
        Rule(USER, ALLOW, "read", pattern),
        Rule(USER, ASK, "read", pattern),
        Rule(USER, DENY, "read", f"{tmp_path}/from/*"),
        Rule(USER, DENY, "exec", pattern),
        Rule(USER, DENY, "read", f"{tmp_path}/to/**"),
    ]
    assert linked(rules) == []
    moved = linked([Rule(USER, DENY, "read", f"{tmp_path}/from/{{a,b}}/x", source="f:1")])
    assert [(r.pattern, r.source) for r in moved] == [
        (f"{tmp_path}/to/a/x", "f:1"),
        (f"{tmp_path}/to/b/x", "f:1"),
    ]


def test_a_link_in_a_circle_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("x")
    assert linked([Rule(USER, DENY, "read", f"{tmp_path}/x/**")]) == []
