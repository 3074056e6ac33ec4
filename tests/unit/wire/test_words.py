"""Words that every surface says alike."""

from __future__ import annotations

import pytest

from remit_daemon.cli.commands import seconds
from remit_daemon.wire.words import NO_RULE, rule_name, term, verbs


def test_operations_read_as_verbs() -> None:
    assert verbs(["connect", "read", "listen"]) == ["connect to", "read", "listen at"]


def test_what_no_rule_is_about_is_said_so() -> None:
    assert rule_name("default") == rule_name("") == NO_RULE
    assert rule_name("/etc/x.toml:3") == "/etc/x.toml:3"


@pytest.mark.parametrize(
    ("given", "said"), [(0, "0s"), (90, "90s"), (600, "10m"), (7200, "2h"), (86400, "1d")]
)
def test_a_term_may_be_written_back(given: int, said: str) -> None:
    assert term(given) == said
    assert seconds(said) == given
