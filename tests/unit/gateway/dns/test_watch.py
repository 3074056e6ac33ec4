"""Names that carry data: counted by what a wildcard left open, however the domain is spelled."""

from __future__ import annotations

import base64
import random

import pytest

from fakes.clock import Clock
from remit_daemon.gateway.dns.watch import ANY, TELLING, Watch, parent_of, telling


def data(number: int) -> str:
    return base64.b32encode(random.Random(number).randbytes(20)).decode().lower().rstrip("=")


@pytest.mark.parametrize(
    "shape",
    ["{}.example.com", "{}.x.example.com", "x.{}.example.com", "{}.example.co.uk", "{}.evi.de", "x.{}.evi.de", "x.{}.t.co"],
)  # fmt: skip
def test_random_names_are_let_through_a_few_times(shape: str) -> None:
    watch = Watch(Clock())
    said = [watch.look(shape.format(data(n)), True) for n in range(TELLING[0] + 3)]
    assert said[: TELLING[0]] == [""] * TELLING[0]
    assert all("possible exfiltration" in s for s in said[TELLING[0] :])
    assert watch.look(shape.format(data(0)), True) == ""  # it has passed before: nothing new leaves


def test_many_short_names_are_counted_too() -> None:
    watch = Watch(Clock())
    said = [watch.look(f"{n}.example.com", True) for n in range(ANY[0] + 1)]
    assert not any(said[:-1])
    assert "different names" in said[-1]


def test_the_rate_comes_back_evenly() -> None:
    clock = Clock()
    watch = Watch(clock)
    for n in range(TELLING[0]):
        assert not watch.look(f"{data(n)}.example.com", True)
    assert watch.look(f"{data(90)}.example.com", True)
    clock.pass_(TELLING[1] / TELLING[0])
    assert not watch.look(f"{data(91)}.example.com", True)
    assert watch.look(f"{data(92)}.example.com", True)


def test_one_domain_does_not_spend_anothers_and_a_person_ends_it() -> None:
    watch = Watch(Clock())
    for n in range(TELLING[0] + 1):
        watch.look(f"{data(n)}.example.com", True)
    assert not watch.look(f"{data(0)}.example.org", True)
    assert watch.look(f"{data(50)}.example.com", True)
    watch.forgive(f"{data(50)}.example.com")
    assert not watch.look(f"{data(51)}.example.com", True)


def test_a_rule_that_names_the_name_is_not_watched() -> None:
    watch = Watch(Clock())
    assert not any(watch.look(f"{data(n)}.example.com", False) for n in range(100))


@pytest.mark.parametrize(
    ("open_part", "tells"),
    [
        ("www", False), ("api", False), ("registry", False), ("raw-githubusercontent", False), ("my-long-service-name", False),
        ("us-east-1.console", False), ("a" * 40, True), (".".join(["abcdefgh"] * 10), True), (data(1), True),
        ("4f2a9c01d3e8b7764f2a9c01", True),
    ],
)  # fmt: skip
def test_what_tells(open_part: str, tells: bool) -> None:
    assert telling(open_part) is tells


def test_the_parent_of_a_name() -> None:
    assert parent_of("a.b.example.co.uk") == ("a.b", "example.co.uk")
    assert parent_of("a.example.com") == ("a", "example.com")
    assert parent_of("a.ibm.de") == ("a", "ibm.de")
    assert parent_of("example.com") == ("", "example.com")
