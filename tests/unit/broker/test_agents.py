"""What is known of an agent by its name."""

from __future__ import annotations

from dataclasses import replace

from remit_daemon.broker import agents
from remit_daemon.broker.agents import LAUNCHED, MAX_PROGRAMS, KnownAgent, Program, of_json, seen, to_json

ONE = Program("1" * 64, "/usr/bin/claude", LAUNCHED, 1.0, 1.0)


def test_the_first_program_is_no_change() -> None:
    known, before = seen(None, "claude", ONE)
    assert (known, before) == (KnownAgent("claude", 1.0, (ONE,)), None)


def test_a_new_digest_comes_in_the_place_of_what_was_there() -> None:
    other = replace(ONE, digest="2" * 64, path="/opt/claude", last_seen=5.0)
    known = KnownAgent("claude", 1.0, (ONE, other))
    new = replace(ONE, digest="3" * 64, last_seen=6.0)
    assert seen(known, "claude", new)[1] == ONE
    assert seen(known, "claude", replace(new, path="/srv/x"))[1] == other
    assert seen(known, "claude", replace(other, last_seen=9.0))[1] is None


def test_what_is_known_keeps_when_it_was_first_seen_and_by_what_it_ran() -> None:
    script = replace(ONE, interpreter_digest="f" * 64, publisher="npm x 1")
    known, _ = seen(
        KnownAgent("x", 1.0, (script,)), "x", replace(ONE, path="/moved", first_seen=7.0, last_seen=7.0)
    )
    assert known.programs == (replace(script, path="/moved", last_seen=7.0),)
    assert known.knows(ONE.digest, "f" * 64)
    assert not known.knows(ONE.digest, "e" * 64), "another interpreter may do anything with the script"
    assert not known.knows("0" * 64)


def test_so_many_are_kept_the_latest() -> None:
    known = None
    for n in range(MAX_PROGRAMS + 5):
        known, _ = seen(known, "x", replace(ONE, digest=f"{n:064}", first_seen=n, last_seen=n))
    assert known is not None
    assert [int(p.digest) for p in known.programs] == list(range(5, MAX_PROGRAMS + 5))


def test_it_survives_being_stored() -> None:
    known = KnownAgent("a\udcffb", 1.0, (ONE,), 2.0, True)
    assert of_json(to_json(known)) == known
    assert agents.of_json(to_json(KnownAgent("x", 0.0))).programs == ()
