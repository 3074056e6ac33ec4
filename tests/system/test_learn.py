"""Learning for real: a run that learns, rules that a person accepts, and a run that is asked nothing any more."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from system.harness import Arena


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        a.write_policy()
        a.start_daemon()
        yield a
    finally:
        a.close()


def learning(arena: Arena, script: str, *options: str) -> tuple[int, str, str]:
    words = ["run", "--agent", "probe", "--project", arena.project, *options, "--", "/bin/sh", "-c", script]
    return arena.communicate(arena.remit(*words))


def test_a_run_that_learned_is_asked_nothing_the_second_time(arena: Arena) -> None:
    notes = arena.home + "/notes"
    key = arena.home + "/.ssh/id_ed25519"
    made = "import os, sys; os.makedirs(sys.argv[1]); [open(f'{sys.argv[1]}/{n}.md', 'w').write(n) for n in 'abc']"
    assert arena.communicate(["/usr/bin/python3", "-c", made, notes])[0] == 0
    script = f"cat {notes}/a.md {notes}/b.md {notes}/c.md && cat {notes}/a.md; cat {key}; true"

    code, out, err = learning(arena, script, "--ask", "deny")
    assert "abc" not in out, "without a rule it is refused"

    code, out, err = learning(arena, script, "--learn")
    assert (code, out) == (0, "abca"), err
    assert "LEARNING" in err
    assert arena.tokens["ssh"] not in out
    session = err.split("remit learn ")[1].split("`")[0]

    code, out, err = arena.communicate(arena.remit("learn", session, "--json"))
    found = json.loads(out)
    assert [(p["ops"], p["pattern"], p["resources"]) for p in found["proposals"]] == [
        (["read"], notes + "/*.md", 3)
    ]

    code, out, err = arena.communicate(arena.remit("learn", session), data=b"\n")
    assert (code, "nothing was added" in out) == (1, True), "Enter is no"
    code, out, err = arena.communicate(arena.remit("learn", session), data=b"e\n/**\ny\n")
    assert code == 0, out + err
    assert "not within" in out
    path = arena.home + "/.config/remit/policy.d/learned-probe.toml"
    with open(path, encoding="utf-8") as f:
        text = f.read()
    assert '"~/notes/*.md",  # ' in text
    assert f"session {session}" in text
    assert os.stat(path).st_mode & 0o077 == 0

    code, out, err = learning(arena, script, "--ask", "deny")
    assert (code, out) == (0, "abca"), err
    code, out, err = arena.communicate(arena.remit("learn", session))
    assert code == 1
    assert "nothing to learn" in out


def test_learning_goes_without_ask(arena: Arena) -> None:
    code, _, err = learning(arena, "true", "--learn", "--ask", "deny")
    assert code == 2
    assert "--learn" in err
