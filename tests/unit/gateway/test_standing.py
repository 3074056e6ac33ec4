"""Permits at once and standing ones: the same rows, limits and ends as permits that are asked for one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit_daemon.gateway import authority as authorities
from remit_daemon.gateway.authority import Authority, Origin, Refused
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records
from remit_policy.model import ALLOW, DENY, USER, Rule, Snapshot

CALL = "org.x.A a.b.C /x"
ORIGIN = Origin(7, "99", "/usr/bin/x", "x", ("x",))


def snapshot(*rules: Rule) -> Snapshot:
    return Snapshot("x", rules)


def allow(**kw: object) -> Rule:
    return Rule(USER, ALLOW, "call", "org.x.A *", source="t:1", **kw)  # type: ignore[arg-type]


class World:
    def __init__(self, path: Path, *rules: Rule) -> None:
        self.path = path / "journal"
        self.authority = Authority(snapshot(*rules), Journal(str(self.path), clock=lambda: 5))

    def rows(self) -> list[list[str]]:
        return [fields for fields, _ in records.unpack(self.path.read_bytes())]


def test_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, allow(), Rule(USER, DENY, "call", "org.x.B *", source="t:2"))
    permit = world.authority.permit_now("call", CALL, ORIGIN, "why")
    assert permit is not None
    permit.done()
    permit.done()
    assert (
        world.authority.permit_now("call", "org.y.Z a.b.C /x", ORIGIN) is None
    )  # asks: recorded when it is asked
    with pytest.raises(Refused) as refused:
        world.authority.permit_now("call", "org.x.B a.b.C /x", ORIGIN)
    assert (refused.value.rule, refused.value.resource) == ("t:2", "org.x.B a.b.C /x")
    assert world.rows() == [
        [
            "act",
            "1",
            "5",
            "call",
            "allow",
            "pending",
            "7",
            "99",
            "/usr/bin/x",
            "",
            CALL,
            "",
            "t:1",
            "",
            "why",
        ],
        ["done", "1", "5", "ok"],
        [
            "act",
            "2",
            "5",
            "call",
            "deny",
            "refused",
            "7",
            "99",
            "/usr/bin/x",
            "",
            "org.x.B a.b.C /x",
            "",
            "t:2",
            "",
            "",
        ],
    ]


def test_a_standing_permit_leaves_the_same_rows(tmp_path: Path) -> None:
    world = World(tmp_path, allow())
    first = world.authority.permit_now("call", CALL, ORIGIN, "note")
    standing = world.authority.standing("call", CALL, ORIGIN, "note")
    assert first is not None
    assert standing is not None
    second = standing.take()
    assert second is not None
    world.authority.complete([(first, ""), (second, "a.b.Error"), (first, "twice")])
    one, two, *done = world.rows()
    assert [*one[:1], *one[2:]] == [*two[:1], *two[2:]]
    assert done == [["done", "1", "5", "ok"], ["done", "2", "5", "ok a.b.Error"]]
    assert not world.authority._live


@pytest.mark.parametrize("condition", [{"rate": (1, 60)}, {"window": (0, 1)}, {"budget": (10, 60)}])
def test_what_is_counted_does_not_stand(tmp_path: Path, condition: dict[str, tuple[int, int]]) -> None:
    world = World(tmp_path, allow(**condition))
    assert world.authority.standing("call", CALL, ORIGIN) is None


def test_what_is_not_simply_allowed_does_not_stand(tmp_path: Path) -> None:
    world = World(tmp_path, Rule(USER, DENY, "call", "org.x.A *"), Rule(USER, ALLOW, "see", "org.x.A"))
    for op, resource in (("call", CALL), ("call", "org.y.B a.b.C /x"), ("see", "org.x.A")):
        assert world.authority.standing(op, resource, ORIGIN) is None


def test_it_ends_with_its_snapshot(tmp_path: Path) -> None:
    world = World(tmp_path, allow())
    standing = world.authority.standing("call", CALL, ORIGIN)
    assert standing is not None
    assert standing.take() is not None
    world.authority.adopt(snapshot(allow()))
    assert standing.take() is None


def test_a_live_one_is_revoked_like_any(tmp_path: Path) -> None:
    world = World(tmp_path, allow())
    standing = world.authority.standing("call", CALL, ORIGIN)
    assert standing is not None
    permit = standing.take()
    assert permit is not None
    gone: list[int] = []
    permit.on_revoked = lambda: gone.append(1)
    world.authority.adopt(snapshot())
    assert gone == [1]


def test_no_more_live_than_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorities, "MAX_LIVE", 2)
    world = World(tmp_path, allow())
    standing = world.authority.standing("call", CALL, ORIGIN)
    assert standing is not None
    assert [standing.take() is not None for _ in range(3)] == [True, True, False]
    with pytest.raises(Refused):
        world.authority.permit_now("call", CALL, ORIGIN)


def test_no_row_no_permit(tmp_path: Path) -> None:
    world = World(tmp_path, allow())
    standing = world.authority.standing("call", CALL, ORIGIN)
    assert standing is not None
    world.authority.journal.close()
    with pytest.raises(OSError, match="journal"):
        standing.take()
    with pytest.raises(Refused, match="journal"):
        world.authority.permit_now("call", CALL, ORIGIN)
