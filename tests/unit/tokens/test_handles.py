"""Refresh handles: used once, by their process; a second use ends all that came of the first."""

from __future__ import annotations

import itertools

import pytest

from remit_daemon.tokens.handles import MAX_OF_PROCESS, MAX_SPENT, PREFIX, Family, Handles, Reused
from remit_daemon.tokens.issuer import TokenError
from remit_daemon.tokens.wanted import Wanted

ME, OTHER = "boot:1:1", "boot:2:2"
WANTED = Wanted("https://a.example", ("log:read",), ())


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self._count = itertools.count()
        self.handles = Handles(lambda: self.now, lambda: f"secret{next(self._count)}")

    def open(self, ident: str = "f1", bound: str = ME, expires: float = 5000.0) -> str:
        return self.handles.open(Family(ident, bound, "claude", WANTED, "g1", expires))


@pytest.fixture
def world() -> World:
    return World()


def test_a_handle_is_used_once_and_gives_the_next(world: World) -> None:
    first = world.open()
    assert first.startswith(PREFIX)
    family = world.handles.look(first, ME)
    second = world.handles.rotate(family)
    assert second != first
    assert world.handles.look(second, ME) == family


def test_used_again_it_ends_the_family(world: World) -> None:
    first = world.open()
    last = first
    for _ in range(5):
        last = world.handles.rotate(world.handles.look(last, ME))
    with pytest.raises(Reused, match="used before") as e:
        world.handles.look(first, ME)
    assert e.value.family.id == "f1"
    assert e.value.code == "invalid_grant"
    for text in (first, last):
        with pytest.raises(TokenError, match="no handle of this process"):
            world.handles.look(text, ME)


def test_another_process_gets_nothing_and_changes_nothing(world: World) -> None:
    first = world.open()
    second = world.handles.rotate(world.handles.look(first, ME))
    for text in (first, second):
        with pytest.raises(TokenError) as e:
            world.handles.look(text, OTHER)
        assert not isinstance(e.value, Reused)
    assert world.handles.look(second, ME).id == "f1"


def test_it_ends_with_its_time_its_grant_and_its_process(world: World) -> None:
    texts = [world.open("f1", expires=2000.0), world.open("f2"), world.open("f3", OTHER)]
    world.now = 2000.0
    with pytest.raises(TokenError, match="expired"):
        world.handles.look(texts[0], ME)
    assert world.handles.end(bound=OTHER) == ["f3"]
    assert world.handles.end(grant_id="g1") == ["f2"]
    assert world.handles.end(family="f2") == []
    assert not any(vars(world.handles)[n] for n in ("_families", "_current", "_spent", "_owner"))


def test_limits(world: World) -> None:
    first = last = world.open("f0")
    for _ in range(MAX_SPENT + 1):
        last = world.handles.rotate(world.handles.look(last, ME))
    with pytest.raises(TokenError) as e:
        world.handles.look(first, ME)  # too long ago to be known
    assert not isinstance(e.value, Reused)
    assert world.handles.look(last, ME)
    for n in range(1, MAX_OF_PROCESS):
        world.open(f"f{n}")
    with pytest.raises(TokenError, match="too many"):
        world.open("more")
    world.open("others", OTHER)
    world.now = 5000.0
    world.open("later", expires=6000.0)


@pytest.mark.parametrize(
    "text", ["", "rr_", "secret0", "\ud800", "rr_" + "x" * 200_000], ids=lambda t: str(len(t))
)
def test_what_is_no_handle(world: World, text: str) -> None:
    world.open()
    with pytest.raises(TokenError):
        world.handles.look(text, ME)


def test_nothing_of_a_handle_is_kept(world: World) -> None:
    text = world.open()
    assert text not in repr(vars(world.handles))
    assert text.removeprefix(PREFIX) not in repr(vars(world.handles))
