"""Match rules are read as the bus reads them, said again in one form, and never more than signals."""

from __future__ import annotations

import pytest

from remit_daemon.gateway.dbus import matches
from remit_daemon.gateway.dbus.matches import BadRule, Eavesdropping


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "type='signal'"),
        ("type='signal'", "type='signal'"),
        ("type=signal,interface=a.b", "type='signal',interface='a.b'"),
        (" type='signal', member='M'", "type='signal',member='M'"),
        ("member='M',interface='a.b'", "type='signal',interface='a.b',member='M'"),
        ("arg0='it''s'", "type='signal',arg0='its'"),
        (r"arg0='it'\''s'", r"type='signal',arg0='it'\''s'"),
        ("arg0='a,eavesdrop=true'", "type='signal',arg0='a,eavesdrop=true'"),
        ("eavesdrop='false',path='/a'", "type='signal',path='/a'"),
        ("arg0namespace='org',arg2path='/a/'", "type='signal',arg0namespace='org',arg2path='/a/'"),
        ("member='M',", "type='signal',member='M'"),
    ],
)
def test_said_again(text: str, said: str) -> None:
    rule = matches.parse(text)
    assert rule.text == said
    assert matches.parse(rule.text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "eavesdrop=true", "eavesdrop='true'", "eavesdrop=tr'ue'", "type='signal',eavesdrop='true'", "eavesdrop='TRUE'", "eavesdrop=''",
        "type='method_call'", "type='method_return'", "type='error'", "type=''",
    ],
)  # fmt: skip
def test_eavesdropping(text: str) -> None:
    with pytest.raises(Eavesdropping):
        matches.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "type", "type='signal", "=x", "sender='a'", "sender='a.b',sender='a.b'", "eavesdrop='false',eavesdrop='true'", "arg64='x'",
        "arg='x'", "arg00='x'", "arg1namespace='a.b'", "arg0foo='x'", "unknown='x'", "path='a'", "path='/a',path_namespace='/a'",
        "member='a.b'", "interface='a'", "x" * 2000, "arg٣='x'", "Eavesdrop='true'", "path='/a\n'",
    ],
)  # fmt: skip
def test_bad(text: str) -> None:
    with pytest.raises(BadRule):
        matches.parse(text)


BUS = frozenset(("org.freedesktop.DBus",))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("sender='org.freedesktop.DBus',member='M'", True),
        ("sender='a.b'", False),
        ("interface='x.y'", False),
        ("path='/a/b'", True),
        ("path='/a'", False),
        ("path_namespace='/a'", True),
        ("path_namespace='/'", True),
        ("path_namespace='/a/bc'", False),
        ("arg0='org.x.Name'", True),
        ("arg0='org.x'", False),
        ("arg0namespace='org.x'", True),
        ("arg0namespace='org.xx'", False),
        ("arg0namespace='org.x.Name'", True),
        ("arg1='/p/'", True),
        ("arg1path='/p/q'", True),
        ("arg1path='/p/'", True),
        ("arg1path='/q'", False),
        ("arg3='x'", False),
        ("destination=':1.1'", False),
    ],
)
def test_fits(text: str, fits: bool) -> None:
    assert matches.parse(text).fits(BUS, "a.b", "M", "/a/b", ("org.x.Name", "/p/", "")) is fits
