"""The classifier, as a table: message and policy in, what to do out. No bus, no clock, no files but a journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remit_daemon.gateway.authority import Authority
from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.classify import BUS, Act, Do, hears, may_know, may_reach, outgoing
from remit_daemon.gateway.dbus.names import Names
from remit_daemon.gateway.dbus.rights import Rights
from remit_daemon.gateway.dbus.wire import CALL, RETURN, SIGNAL, Message, Parser
from remit_daemon.gateway.journal import Journal
from remit_policy.model import USER, VERDICTS, Rule, Snapshot

ME, PEER, NOBODY = ":1.9", ":1.2", ":1.3"
PROPS = "org.freedesktop.DBus.Properties"
RULES = """
allow see org.see.Me
deny see org.hide.*
deny call org.hide.*
allow call org.all.* *
allow call org.some.A org.some.Face.*
deny call org.some.A org.some.Face.Bad
allow call org.args.A org.x.I.Open@/x(good*)
allow own org.mine.*
deny own org.mine.Bad
allow emit org.mine.* *
deny emit org.mine.Quiet *
deny call org.other.Shell *
allow call org.other.Notes *
"""


@pytest.fixture
def rights(tmp_path: Path) -> Rights:
    rules = []
    for number, line in enumerate(RULES.splitlines(), 1):
        if line:
            verdict, op, pattern = line.split(None, 2)
            rules.append(Rule(USER, VERDICTS.index(verdict), op, pattern, source=f"t:{number}"))
    return Rights(Authority(Snapshot("x", tuple(rules)), Journal(str(tmp_path / "journal"))), False)


def names(**owned: str) -> Names:
    """Return names with those of each unique name (without ``:1.``), divided by blanks."""
    made = Names()
    for number, all_ in owned.items():
        for name in all_.split():
            made.change(name, f":1.{number[1:]}")
    return made


def message(kind: int = CALL, *strings: str, **fields: Any) -> Message:
    if kind != RETURN:
        fields = {"path": "/x", "member": "M"} | fields
    if strings:
        fields |= {"signature": "s" * len(strings), "body": wire.pack_strings(*strings)}
    return Parser().parse(wire.build(kind, 1, **fields))


def bus(member: str, *strings: str, interface: str = BUS) -> Message:
    return message(CALL, *strings, dest=BUS, interface=interface, member=member)


def classified(m: Message, rights: Rights, at: Names | None = None, me: str = ME) -> Act:
    return outgoing(m, at or names(), rights, me)


@pytest.mark.parametrize(
    ("member", "strings", "do"),
    [
        ("Hello", (), Do.FORWARD),
        ("GetId", (), Do.FORWARD),
        ("ListNames", (), Do.LIST),
        ("ListActivatableNames", (), Do.LIST),
        ("AddMatch", ("type='signal'",), Do.LISTEN),
        ("RemoveMatch", ("type='signal'",), Do.UNLISTEN),
        ("AddMatch", ("eavesdrop='true'",), Do.REFUSE),
        ("AddMatch", ("rubbish",), Do.ANSWER),
        ("RequestName", ("org.mine.A",), Do.PERMIT),
        ("RequestName", (":1.1",), Do.FORWARD),
        ("ReleaseName", ("org.hide.A",), Do.ANSWER),
        ("ReleaseName", ("org.see.Me",), Do.FORWARD),
        ("NameHasOwner", ("org.see.Me",), Do.FORWARD),
        ("NameHasOwner", ("org.hide.A",), Do.ANSWER),
        ("NameHasOwner", ("org.unknown.A",), Do.PERMIT),
        ("NameHasOwner", (NOBODY,), Do.ANSWER),
        ("NameHasOwner", (ME,), Do.FORWARD),
        ("NameHasOwner", (BUS,), Do.FORWARD),
        ("GetNameOwner", ("org.some.A",), Do.FORWARD),
        ("GetNameOwner", ("not a name",), Do.FORWARD),
        ("GetConnectionCredentials", (NOBODY,), Do.ANSWER),
        ("StartServiceByName", ("org.all.A",), Do.PERMIT),
        ("StartServiceByName", ("org.some.A",), Do.FORWARD),
        ("StartServiceByName", ("org.hide.A",), Do.PERMIT),
        ("StartServiceByName", ("org.unknown.A",), Do.PERMIT),
        ("UpdateActivationEnvironment", (), Do.REFUSE),
        ("ReloadConfig", (), Do.REFUSE),
        ("GetConnectionSELinuxSecurityContext", (NOBODY,), Do.REFUSE),
        ("NewerMethod", (), Do.REFUSE),
    ],
)  # fmt: skip
def test_what_the_bus_may_be_asked(rights: Rights, member: str, strings: tuple[str, ...], do: Do) -> None:
    assert classified(bus(member, *strings), rights).do is do
    assert classified(bus(member, *strings, interface=""), rights).do is do


@pytest.mark.parametrize(
    ("interface", "member"),
    [
        ("org.freedesktop.DBus.Monitoring", "BecomeMonitor"),
        ("", "BecomeMonitor"),
        ("org.freedesktop.DBus.Debug.Stats", "GetStats"),
        ("org.freedesktop.systemd1.Activator", "X"),
        (PROPS, "Set"),
        ("org.freedesktop.DBus.Containers1", "AddServer"),
        ("org.other.I", "Hello"),
    ],
)
def test_what_it_may_not(rights: Rights, interface: str, member: str) -> None:
    assert classified(bus(member, interface=interface), rights).do is Do.REFUSE


CALLS = [
    # destination, interface, member, strings, verdict, resource
    ("org.all.A", "a.b", "M", (), Do.PERMIT, "org.all.A a.b.M /x"),
    ("org.some.A", "org.some.Face", "Good", ("secret",), Do.PERMIT, "org.some.A org.some.Face.Good /x"),
    ("org.some.A", "org.some.Face", "Bad", ("x",), Do.PERMIT, "org.some.A org.some.Face.Bad /x"),
    ("org.some.A", "org.other.Face", "M", ("a b",), Do.PERMIT, "org.some.A org.other.Face.M /x a%20b"),
    ("org.args.A", "org.x.I", "Open", ("good one",), Do.PERMIT, "org.args.A org.x.I.Open /x good%20one"),
    ("org.args.A", "org.x.I", "Open", ("x" * 9000,), Do.REFUSE, None),
    ("org.hide.A", "a.b", "M", (), Do.PERMIT, "org.hide.A a.b.M /x"),
    ("", "a.b", "M", (), Do.REFUSE, None),
    (NOBODY, "a.b", "M", (), Do.PERMIT, ":1.3 a.b.M /x"),
    (ME, "a.b", "M", (), Do.FORWARD, None),
    ("org.some.A", "", "Good", (), Do.REFUSE, None),
    ("org.all.A", "", "Any", (), Do.PERMIT, "org.all.A *.Any /x"),
]


@pytest.mark.parametrize(("dest", "interface", "member", "strings", "do", "resource"), CALLS)
def test_calls(
    rights: Rights,
    dest: str,
    interface: str,
    member: str,
    strings: tuple[str, ...],
    do: Do,
    resource: str | None,
) -> None:
    act = classified(message(CALL, *strings, dest=dest, interface=interface, member=member), rights)
    assert act.do is do
    if resource is not None:
        assert (act.op, act.resource) == ("call", resource)


def test_hidden_names_are_hidden(rights: Rights) -> None:
    at = names(n2="org.hide.A")
    for dest in ("org.hide.A", PEER):
        act = classified(message(dest=dest, interface="a.b"), rights, at)
        assert act.hidden is not None
        assert act.hidden.error.endswith("ServiceUnknown")
    assert classified(message(dest="org.unknown.A", interface="a.b"), rights).hidden is None


def test_a_unique_name_is_each_of_its_names_now(rights: Rights) -> None:
    call = message(dest=PEER, interface="org.some.Face", member="Good")
    at = names(n2="org.unknown.A org.some.A")
    assert classified(call, rights, at).resource == "org.some.A org.some.Face.Good /x"
    at.change("org.some.A", "")
    assert classified(call, rights, at).resource == "org.unknown.A org.some.Face.Good /x"
    at.change("org.unknown.A", "")
    assert classified(call, rights, at).resource == ":1.2 org.some.Face.Good /x"


@pytest.mark.parametrize(
    ("interface", "strings", "resource"),
    [
        ("org.other.Notes", (), "org.other.Notes"),
        ("org.other.Shell", (), "org.other.Shell"),
        ("org.gtk.Actions", (), "org.other.Shell"),
        (PROPS, ("org.other.Notes", "x"), "org.other.Notes"),
        (PROPS, ("org.other.Shell", "x"), "org.other.Shell"),
        (PROPS, (), "org.other.Shell"),
    ],
)
def test_a_program_with_two_names(
    rights: Rights, interface: str, strings: tuple[str, ...], resource: str
) -> None:
    at = names(n2="org.other.Notes org.other.Shell org.unknown.A")
    for dest in ("org.other.Notes", PEER):
        act = classified(message(CALL, *strings, dest=dest, interface=interface), rights, at)
        assert act.resource.split()[0] == resource


def test_looking_is_no_question(rights: Rights) -> None:
    look = {"interface": "org.freedesktop.DBus.Introspectable", "member": "Introspect"}
    at = names(n2="org.see.Me", n3="org.unknown.A")
    assert classified(message(dest="org.see.Me", **look), rights, at).do is Do.FORWARD
    assert classified(message(dest=PEER, **look), rights, at).do is Do.FORWARD
    assert classified(message(dest="org.see.Me", **look), rights).do is Do.PERMIT  # it would be started
    assert classified(message(dest="org.unknown.A", **look), rights, at).do is Do.PERMIT


@pytest.mark.parametrize(
    ("mine", "resource"),
    [
        ("", ":1.9 a.b.S /x"),
        ("org.mine.A", "org.mine.A a.b.S /x"),
        ("org.mine.A org.mine.Quiet", "org.mine.Quiet a.b.S /x"),
        ("org.mine.A org.unknown.B", "org.unknown.B a.b.S /x"),
    ],
)
def test_emissions(rights: Rights, mine: str, resource: str) -> None:
    at = names(n9=mine, n2="org.see.Me", n3="org.hide.A")
    act = classified(message(SIGNAL, interface="a.b", member="S"), rights, at)
    assert (act.do, act.op, act.resource) == (Do.PERMIT, "emit", resource)
    assert classified(message(SIGNAL, interface="a.b", member="S", dest=PEER), rights, at).do is Do.PERMIT
    assert classified(message(SIGNAL, interface="a.b", member="S", dest=":1.3"), rights, at).do is Do.DROP
    assert classified(message(SIGNAL, interface=BUS, member="NameOwnerChanged"), rights, at).do is Do.REFUSE


def test_before_hello(rights: Rights) -> None:
    for m, do in (
        (message(dest="org.all.A", interface="a.b"), Do.REFUSE),
        (message(SIGNAL, interface="a.b"), Do.DROP),
    ):
        assert classified(m, rights, me="").do is do
    assert classified(bus("StartServiceByName", "org.unknown.A"), rights, me="").do is Do.PERMIT
    assert classified(bus("GetNameOwner", "org.hide.A"), rights, me="").do is Do.ANSWER


def test_who_may_be_known(rights: Rights) -> None:
    at = names(n2="org.see.Me org.hide.A", n3="org.hide.B", n9="org.mine.A")
    known = [
        n
        for n in (BUS, ME, "org.mine.A", "org.see.Me", PEER, "org.hide.A", ":1.3", ":1.4")
        if may_know(n, at, rights, ME)
    ]
    assert known == [BUS, ME, "org.mine.A", "org.see.Me", PEER]


def test_what_is_heard(rights: Rights) -> None:
    at = names(n2="org.see.Me", n3="org.some.A", n4="org.unknown.A")

    def heard(sender: str, interface: str, *strings: str, dest: str = "") -> bool:
        m = message(SIGNAL, *strings, sender=sender, interface=interface, member="Changed", dest=dest)
        return hears(m, at, rights, ME)[0]

    assert heard(PEER, "any.thing")
    assert heard(":1.3", "org.some.Face")
    assert not heard(":1.3", "org.some.Other")
    assert heard(":1.3", PROPS, "org.some.Face")
    assert not heard(":1.3", PROPS, "org.some.Other")
    assert not heard(":1.4", "any.thing")
    assert not heard(":1.5", "any.thing")
    assert heard(ME, "any.thing")
    at.meet(":1.4")
    assert heard(":1.4", "any.thing", dest=ME)
    assert not heard(":1.4", "any.thing")


def test_who_may_call_the_agent(rights: Rights) -> None:
    call = message(sender=":1.4", dest=ME, interface="a.b")
    assert not may_reach(call, names(), rights, ME)
    assert may_reach(call, names(n9="org.mine.A"), rights, ME)
    assert may_reach(call, names(n4="org.see.Me"), rights, ME)
    assert may_reach(message(sender=":1.4", dest="org.mine.A", interface="a.b"), names(), rights, ME)


def test_a_closed_system_bus(tmp_path: Path) -> None:
    from system.buses import policy

    rights = Rights(Authority(policy(), Journal(str(tmp_path / "j2"))), True)
    act = classified(
        message(dest="org.freedesktop.login1", interface="org.freedesktop.login1.Manager"), rights
    )
    assert act.resource.startswith("system:org.freedesktop.login1 ")
    assert rights.decide("call", act.resource).verdict == VERDICTS.index("deny")
    assert rights.decide("call", "system::1.5 a.b.C /x").verdict == VERDICTS.index("deny")
