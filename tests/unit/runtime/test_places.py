"""Nobody takes the last places from the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.runtime.places import FEW, Places


def test_one_holder_leaves_room_for_others() -> None:
    places = Places(total=40, each=100, kept=16)
    assert sum(places.take("greedy") for _ in range(100)) == 24
    assert [places.take("other") for _ in range(FEW + 1)] == [True] * FEW + [False]
    assert places.take("third")


def test_a_holder_has_so_many() -> None:
    places = Places(total=40, each=3, kept=0)
    assert [places.take("a") for _ in range(5)] == [True] * 3 + [False] * 2
    places.leave("a")
    assert places.take("a")
    assert not places.take("a")


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcd")), max_size=200))
def test_places_are_neither_lost_nor_made(steps: list[tuple[bool, str]]) -> None:
    places, held = Places(total=20, each=14, kept=4), []
    for take, who in steps:
        if take and places.take(who):
            held.append(who)
        elif not take and who in held:
            held.remove(who)
            places.leave(who)
        assert len(held) <= 20
        assert max((held.count(w) for w in "abcd"), default=0) <= 14
        if len(held) < 16:
            assert held.count(who) >= 14 or (places.take(who) and not places.leave(who))
    for who in held:
        places.leave(who)
    assert sum(places.take(str(n)) for n in range(30)) == 20
