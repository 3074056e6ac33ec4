"""Who owns what: as the bus says now."""

from __future__ import annotations

from remit_daemon.gateway.dbus.names import MAX_MET, Names


def test_rights_go_with_the_name() -> None:
    names = Names()
    assert names.change("a.b", ":1.1")
    assert names.change("a.c", ":1.1")
    assert names.owned(":1.1") == {"a.b", "a.c"}
    assert names.change("a.b", ":1.2")
    assert (names.owned(":1.1"), names.owned(":1.2"), names.owner("a.b")) == ({"a.c"}, {"a.b"}, ":1.2")
    assert names.change("a.b", "")
    assert (names.owned(":1.2"), names.owner("a.b")) == (set(), "")
    assert not names.change("a.b", "")
    assert not names.change("a.c", ":1.1")
    assert names.owner("a.c") == ":1.1"


def test_who_leaves_owns_nothing() -> None:
    names = Names()
    names.change("a.b", ":1.1")
    names.meet(":1.1")
    assert not names.change(":1.3", ":1.3")
    assert names.change(":1.1", "")
    assert (names.owner("a.b"), names.owned(":1.1"), names.met(":1.1")) == ("", set(), False)


def test_no_more_are_remembered_than_so_many() -> None:
    names = Names()
    for i in range(MAX_MET + 5):
        names.meet(f":1.{i}")
    assert not names.met(":1.0")
    assert names.met(f":1.{MAX_MET + 4}")
