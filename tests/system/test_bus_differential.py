"""The same requests through xdg-dbus-proxy and through remit, by equal policies: equal, but for what JUSTIFIED says.

Each case does one thing on a new connection and gives a word for what came of it: what was answered, or the error's name.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remit_daemon.gateway.dbus import wire
from system.buses import BUS, BUS_PATH, Client, Proxy, RealBus, Refusal, Service, policy, until

pytestmark = [
    pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="there is no dbus-daemon"),
    pytest.mark.skipif(
        not shutil.which("xdg-dbus-proxy"), reason="there is no xdg-dbus-proxy to compare with"
    ),
]

SEEN, TALK, PART, NONE, MINE = "org.t.Seen", "org.t.Talk", "org.t.Part", "org.t.None", "org.t.Mine"
FACE = "org.t.Face"
THEIRS = [
    "--filter", f"--see={SEEN}", f"--talk={TALK}", f"--call={PART}={FACE}.Good@/x", f"--broadcast={PART}={FACE}.Said@/x",
    f"--own={MINE}.*", f"--own={MINE}",
]  # fmt: skip
OURS = f"""
deny see org.t.None
deny call org.t.*
deny own org.t.*
deny see org.absent.*
deny call org.absent.*
allow see {SEEN}
allow see {TALK}
allow call {TALK} *
allow call {PART} {FACE}.Good@/x
allow call {PART} {FACE}.Said@/x
allow own {MINE}.*
allow own {MINE}
allow emit {MINE} *
allow emit {MINE}.* *
"""

World = dict[str, Service]
Case = Callable[[Client, World], str]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def add(what: Case) -> Case:
        CASES[name] = what
        return what

    return add


def word(message: wire.Message) -> str:
    """Return what a reply says, but for what differs between two connections."""
    signature = message.head.signature
    if signature == "as":
        return " ".join(sorted(n for n in wire.strings(message) if n[:1] != ":"))
    if signature == "s":
        return wire.leading(message)[0]
    if signature in ("u", "b"):
        return str(struct.unpack("<I", bytes(message.body))[0])
    return signature or "done"


def _owner(client: Client, world: World, name: str) -> str:
    said = word(client.bus("GetNameOwner", name))
    return "its owner" if name in world and said == world[name].me else "somebody"


for dest in (SEEN, TALK, PART, NONE, "org.absent.X"):
    CASES[f"call {dest}"] = lambda c, w, d=dest: word(c.call(d, "/x", FACE, "Good"))
    CASES[f"call {dest} otherwise"] = lambda c, w, d=dest: word(c.call(d, "/y", FACE, "Good"))
    CASES[f"call {dest}, another member"] = lambda c, w, d=dest: word(c.call(d, "/x", FACE, "Bad"))
    CASES[f"call {dest} without interface"] = lambda c, w, d=dest: word(c.call(d, "/x", "", "Good"))
    CASES[f"ping {dest}"] = lambda c, w, d=dest: word(c.call(d, "/", "org.freedesktop.DBus.Peer", "Ping"))
    CASES[f"introspect {dest}"] = lambda c, w, d=dest: word(
        c.call(d, "/x", "org.freedesktop.DBus.Introspectable", "Introspect")
    )
    CASES[f"start {dest}"] = lambda c, w, d=dest: word(
        c.call(
            BUS,
            BUS_PATH,
            BUS,
            "StartServiceByName",
            signature="su",
            body=wire.pack_strings(d) + bytes(-(len(d) + 5) % 4) + bytes(4),
        )
    )
    for member in ("NameHasOwner", "ListQueuedOwners", "GetConnectionUnixUser"):
        CASES[f"{member} {dest}"] = lambda c, w, d=dest, m=member: word(c.bus(m, d))
    CASES[f"GetNameOwner {dest}"] = lambda c, w, d=dest: _owner(c, w, d)
    CASES[f"GetConnectionCredentials {dest}"] = lambda c, w, d=dest: word(
        c.bus("GetConnectionCredentials", d)
    )
for dest in (SEEN, TALK, PART, NONE):
    CASES[f"call {dest} by its unique name"] = lambda c, w, d=dest: word(
        c.call(w[d].me, "/x", FACE, "Good")
    )
    CASES[f"who is {dest}'s unique name"] = lambda c, w, d=dest: word(c.bus("NameHasOwner", w[d].me))
    CASES[f"user of {dest}'s unique name"] = lambda c, w, d=dest: word(
        c.bus("GetConnectionUnixUser", w[d].me)
    )
for rule in (
    "",
    "type='signal'",
    f"sender='{NONE}'",
    "type='signal',eavesdrop='true'",
    "eavesdrop=true",
    "rubbish",
    "type='signal',path='/a',path='/b'",
    "type='method_call'",
):
    CASES[f"AddMatch {rule!r}"] = lambda c, w, r=rule: word(c.bus("AddMatch", r))
CASES["RemoveMatch of none"] = lambda c, w: word(c.bus("RemoveMatch", "type='signal',member='Never'"))
for member in ("ListNames", "ListActivatableNames", "GetId", "Nothing", "Hello"):
    CASES[member] = lambda c, w, m=member: word(c.bus(m)) if m != "GetId" else str(len(word(c.bus(m))))
CASES["BecomeMonitor"] = lambda c, w: word(
    c.call(
        BUS, BUS_PATH, "org.freedesktop.DBus.Monitoring", "BecomeMonitor", signature="asu", body=bytes(8)
    )
)
CASES["UpdateActivationEnvironment"] = lambda c, w: word(
    c.bus("UpdateActivationEnvironment", signature="a{ss}", body=bytes(8))
)
CASES["ReloadConfig"] = lambda c, w: word(c.bus("ReloadConfig"))
CASES["statistics"] = lambda c, w: word(
    c.call(BUS, BUS_PATH, "org.freedesktop.DBus.Debug.Stats", "GetStats")
)
CASES["the bus's properties"] = lambda c, w: word(
    c.call(BUS, BUS_PATH, "org.freedesktop.DBus.Properties", "GetAll", BUS)
)
CASES["ping the bus"] = lambda c, w: word(c.call(BUS, BUS_PATH, "org.freedesktop.DBus.Peer", "Ping"))
for name in (MINE, MINE + ".A", "org.t.Others", "org.freedesktop.DBus", ":1.5"):
    CASES[f"own {name}"] = lambda c, w, n=name: str(c.own(n))
CASES["release"] = lambda c, w: (
    f"{c.own(MINE)} {word(c.bus('ReleaseName', MINE))} {word(c.bus('ReleaseName', MINE))}"
)
CASES["release what is hidden"] = lambda c, w: word(c.bus("ReleaseName", NONE))


@case("hear broadcasts")
def hear(client: Client, world: World) -> str:
    client.bus("AddMatch", "type='signal'")
    for dest in (SEEN, TALK, PART, NONE):
        world[dest].emit(FACE, "Said", dest)
        world[dest].emit(FACE, "Other", dest)
        client.bus("GetId")
    heard = []
    while not client.quiet(
        lambda m: m.head.interface == FACE and not heard.append(f"{wire.leading(m)[0]}.{m.head.member}"),
        0.1,
    ):  # type: ignore[func-returns-value]
        pass
    return " ".join(sorted(set(heard)))


@case("hear what is sent to it alone")
def hear_alone(client: Client, world: World) -> str:
    heard = []
    for dest in (SEEN, TALK, NONE):
        world[dest].emit(FACE, "Said", dest, dest=client.me)
    while not client.quiet(
        lambda m: m.head.interface == FACE and not heard.append(wire.leading(m)[0]), 0.1
    ):  # type: ignore[func-returns-value]
        pass
    return " ".join(sorted(heard))


@case("be called")
def be_called(client: Client, world: World) -> str:
    client.own(MINE)
    world[NONE].client.start(MINE, "/x", FACE, "Hi")
    return client.wait(lambda m: m.head.type == wire.CALL).head.member


@case("be called by its unique name by a hidden program")
def be_called_unnamed(client: Client, world: World) -> str:
    world[NONE].client.start(client.me, "/x", FACE, "Hi")
    return "called" if not client.quiet(lambda m: m.head.type == wire.CALL) else "not called"


@case("emit a broadcast as an owner")
def emit(client: Client, world: World) -> str:
    client.own(MINE)
    with Client(ADDRESS[0]) as listener:
        listener.bus("AddMatch", f"sender='{client.me}'")
        client.send(wire.SIGNAL, path="/x", interface=FACE, member="News")
        return listener.signal(FACE, "News").head.member


@case("emit a broadcast as nobody")
def emit_unnamed(client: Client, world: World) -> str:
    with Client(ADDRESS[0]) as listener:
        listener.bus("AddMatch", f"sender='{client.me}'")
        client.send(wire.SIGNAL, path="/x", interface=FACE, member="News")
        return "not heard" if listener.quiet(lambda m: m.head.member == "News", 0.3) else "heard"


ADDRESS = [""]
# Case -> what xdg-dbus-proxy says, what remit says, and why that is better.
_E = "org.freedesktop.DBus.Error."
_DENIED, _UNKNOWN, _GONE, _INVALID = (
    _E + "AccessDenied",
    _E + "ServiceUnknown",
    _E + "NameHasNoOwner",
    _E + "InvalidArgs",
)
_AS_A_BUS = "what a bus says of a name that is not there"
_SEEN = "what may be seen may be asked about"
JUSTIFIED: dict[str, tuple[str, str, str]] = {
    f"ListQueuedOwners {SEEN}": (_DENIED, "", _SEEN),
    f"ListQueuedOwners {TALK}": (_DENIED, "", _SEEN),
    f"ListQueuedOwners {PART}": (_DENIED, "", _SEEN),
    **{
        f"{member} {name}": (_UNKNOWN, _GONE, _AS_A_BUS)
        for member in ("ListQueuedOwners", "GetConnectionUnixUser", "GetConnectionCredentials")
        for name in (NONE, "org.absent.X")
    },
    f"call {NONE} by its unique name": (_GONE, _UNKNOWN, _AS_A_BUS),
    f"user of {NONE}'s unique name": (_UNKNOWN, _GONE, _AS_A_BUS),
    "release what is hidden": (_UNKNOWN, "2", _AS_A_BUS),
    "AddMatch \"type='method_call'\"": ("done", _DENIED, "it could match only for who eavesdrops"),
    "Hello": ("no answer", _E + "Failed", "a second Hello is answered as the bus answers it"),
    "the bus's properties": (_DENIED, "a{sv}", "they say what the bus can do, and nothing of others"),
    "ping the bus": (_DENIED, "done", "it is alive, as everybody may know"),
    "own org.t.Others": (_UNKNOWN, _DENIED, "a refusal says that it is one"),
    "own org.freedesktop.DBus": (_DENIED, _INVALID, "the bus refuses it with its own reason"),
    "own :1.5": (_UNKNOWN, _INVALID, "the bus refuses it with its own reason"),
    "hear broadcasts": (
        f"{PART}.Said {TALK}.Other {TALK}.Said", f"{PART}.Said {SEEN}.Other {SEEN}.Said {TALK}.Other {TALK}.Said",
        "who may see a name hears it: `see` is what a rule on hearing is called here",
    ),
    "hear what is sent to it alone": (f"{NONE} {SEEN} {TALK}", f"{SEEN} {TALK}", "what is hidden cannot speak to the agent"),
    "be called by its unique name by a hidden program": ("called", "not called", "likewise, while the agent serves nobody"),
    "emit a broadcast as nobody": ("heard", "not heard", "broadcasts are asked for by `emit`"),
}  # fmt: skip


def outcome(address: str, what: Case, world: World) -> str:
    with Client(address) as client:
        try:
            return what(client, world)
        except Refusal as e:
            return e.name
        except TimeoutError:
            return "no answer"
        except EOFError:
            return "closed"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, World]]:
    bus = RealBus()
    world = {name: Service(bus.address, name) for name in (SEEN, TALK, PART, NONE)}
    path = tmp_path_factory.mktemp("xdg") / "bus"
    theirs = subprocess.Popen(["xdg-dbus-proxy", bus.address, str(path), *THEIRS])
    until(path.exists)
    ours = Proxy(bus.address, policy(OURS, hold=0.3))
    ADDRESS[0] = bus.address
    yield f"unix:path={Path(path)}", ours.address, world
    ours.close()
    theirs.terminate()
    theirs.wait()
    for service in world.values():
        service.close()
    bus.close()


@pytest.mark.parametrize("name", CASES)
def test_equal(both: tuple[str, str, World], name: str) -> None:
    theirs, ours, world = both
    seen = (outcome(theirs, CASES[name], world), outcome(ours, CASES[name], world))
    if name in JUSTIFIED:
        assert seen == JUSTIFIED[name][:2]
    else:
        assert seen[0] == seen[1]
