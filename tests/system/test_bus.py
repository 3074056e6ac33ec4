"""The bus an agent reaches, before a real dbus-daemon: what passes, what is hidden, held, refused, and how it looks."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from remit_daemon.gateway.dbus import wire
from system.buses import BUS, BUS_PATH, Client, Proxy, RealBus, Refusal, Service, policy, until

pytestmark = pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="there is no dbus-daemon")

PLAYER, RIVAL, SECRET = "org.mpris.MediaPlayer2.toy", "org.example.Rival", "org.freedesktop.systemd1"
IFACE = "org.mpris.MediaPlayer2.Player"
PATH = "/org/mpris/MediaPlayer2"
RULES = f"""
allow see {PLAYER}
allow call {PLAYER} {IFACE}.*
deny call {PLAYER} {IFACE}.Quit
allow own org.example.Mine
allow emit org.example.Mine *
"""


@pytest.fixture(scope="module")
def bus() -> Iterator[RealBus]:
    b = RealBus()
    yield b
    b.close()


@pytest.fixture
def world(bus: RealBus) -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []

    def make(rules: str = RULES, which: str = "session") -> Proxy:
        made.append(Proxy(bus.address, policy(rules), which=which))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def service(bus: RealBus) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(*names: str) -> Service:
        made.append(Service(bus.address, *names))
        return made[-1]

    yield make
    for one in made:
        one.close()


def said(message: wire.Message) -> tuple[str, ...]:
    return wire.leading(message)


# -- calls -----------------------------------------------------------------------------------------


def test_an_allowed_call_passes_and_is_recorded(world, service) -> None:
    player, proxy = service(PLAYER), world()
    with Client(proxy.address) as agent:
        assert said(agent.call(PLAYER, PATH, IFACE, "Play")) == (f"{IFACE}.Play",)
    assert player.members() == [f"{IFACE}.Play"]
    until(lambda: proxy.acts() == [("call", "allow", "ok", f"{PLAYER} {IFACE}.Play {PATH}", "")])


@pytest.mark.parametrize("big", [False, True])
def test_both_byte_orders(world, service, big: bool) -> None:
    service(PLAYER)
    with Client(world().address, big=big) as agent:
        for _ in range(3):
            assert said(agent.call(PLAYER, PATH, IFACE, "Play", "x")) == (f"{IFACE}.Play",)
        assert PLAYER in wire.strings(agent.bus("ListNames"))


def test_a_denied_call_says_why(world, service) -> None:
    player, proxy = service(PLAYER), world()
    with Client(proxy.address) as agent, pytest.raises(Refusal) as refused:
        agent.call(PLAYER, PATH, IFACE, "Quit")
    assert refused.value.name == f"{BUS}.Error.AccessDenied"
    assert refused.value.text.startswith(
        f"refused by remit: call {PLAYER} {IFACE}.Quit {PATH}: the policy denies it (test.toml:4); "
    )
    assert not player.calls
    assert proxy.acts()[0][:3] == ("call", "deny", "refused")


def test_by_its_unique_name_a_program_is_what_it_is_called(world, service) -> None:
    player = service(PLAYER)
    with Client(world().address) as agent:
        assert said(agent.call(player.me, PATH, IFACE, "Play"))
        with pytest.raises(Refusal):
            agent.call(player.me, PATH, IFACE, "Quit")


def test_a_released_name_gives_no_right(world, service) -> None:
    player, proxy = service(PLAYER), world()
    with Client(proxy.address) as agent:
        agent.call(player.me, PATH, IFACE, "Play")
        player.client.start(BUS, BUS_PATH, BUS, "ReleaseName", PLAYER)
        until(lambda: _has_no(agent, PLAYER))
        agent.start(player.me, PATH, IFACE, "Play")
        assert proxy.asked()[0]["path"] == f"{player.me} {IFACE}.Play {PATH}"
    assert len(player.calls) == 1


def _has_no(agent: Client, name: str) -> bool:
    return not any(agent.bus("NameHasOwner", name).body)


def test_another_name_of_the_same_program_counts_where_the_interface_is_its_own(world, service) -> None:
    rules = "allow call org.freedesktop.Notifications *\nallow call org.example.Both *\n"
    shell, proxy = service("org.gnome.Shell", "org.freedesktop.Notifications"), world(rules)
    with Client(proxy.address) as agent:
        name = "org.freedesktop.Notifications"
        assert agent.call(name, "/n", name, "Notify")
        for dest in (name, shell.me):
            with pytest.raises(Refusal, match=r"org\.gnome\.Shell"):
                agent.call(dest, "/s", "org.gnome.Shell", "Eval")
            with pytest.raises(Refusal):
                agent.call(dest, "/s", "org.gtk.Actions", "Activate")
            with pytest.raises(Refusal):
                agent.call(dest, "/s", "org.freedesktop.DBus.Properties", "Set", "org.gnome.Shell", "x")
        assert agent.call(shell.me, "/n", name, "Notify")
        assert agent.call(name, "/n", "org.freedesktop.DBus.Properties", "Get", name, "x")
    assert "org.gnome.Shell.Eval" not in shell.members()


def test_a_call_without_interface_passes_only_where_all_do(world, service) -> None:
    service(PLAYER), service(RIVAL)
    with Client(world(RULES + f"allow call {RIVAL} *\n").address) as agent:
        with pytest.raises(Refusal, match="names no interface"):
            agent.call(PLAYER, PATH, "", "Quit")
        assert agent.call(RIVAL, "/x", "", "Anything")


def test_rules_on_arguments(world, service) -> None:
    service(RIVAL)
    rules = (
        f"allow call {RIVAL} org.x.I.Open@/x(, https://good.example/*)\ndeny call {RIVAL} org.x.I.Open\n"
    )
    with Client(world(rules).address) as agent:
        assert agent.call(RIVAL, "/x", "org.x.I", "Open", "", "https://good.example/a")
        for uri in ("https://evil.example/", "file:///etc/passwd", "https://good.example/" + "a" * 9000):
            with pytest.raises(Refusal):
                agent.call(RIVAL, "/x", "org.x.I", "Open", "", uri)


def test_no_reply_calls_are_done_when_sent(world, service) -> None:
    player, proxy = service(PLAYER), world()
    with Client(proxy.address) as agent:
        agent.start(PLAYER, PATH, IFACE, "Play", flags=wire.NO_REPLY)
        agent.start(PLAYER, PATH, IFACE, "Quit", flags=wire.NO_REPLY)
        until(lambda: player.calls)
        assert agent.quiet(lambda m: m.head.type == wire.ERROR)
    assert [a[2] for a in proxy.acts()] == ["ok", "refused"]


def test_an_error_of_the_service_reaches_the_agent(world) -> None:
    proxy = world(f"allow call {RIVAL} *\n")
    with Client(proxy.address) as agent:
        with pytest.raises(Refusal) as error:
            agent.call("org.example.Rival", "/x", "org.x.I", "M")
        assert error.value.name.endswith("ServiceUnknown")
    until(lambda: proxy.acts()[0][2] != "pending")
    assert proxy.acts()[0][2].startswith("ok org.freedesktop.DBus.Error.ServiceUnknown")


# -- questions -------------------------------------------------------------------------------------


def test_a_question_holds_only_that_call(world, service) -> None:
    rival, proxy = service(RIVAL), world()
    service(PLAYER)
    with Client(proxy.address) as agent:
        held = agent.start(RIVAL, "/x", "org.x.I", "Ask", "first", "second")
        frame = proxy.asked()[0]
        assert frame["ops"] == ["call"]
        assert frame["path"] == f"{RIVAL} org.x.I.Ask /x first second"
        assert agent.call(PLAYER, PATH, IFACE, "Play")
        assert not rival.calls
        proxy.answer(frame, "allow")
        assert said(agent.reply(held)) == ("org.x.I.Ask",)
    until(lambda: proxy.acts()[-1][:3] == ("call", "allow", "ok"))


def test_an_answer_that_becomes_a_rule(world, service) -> None:
    """What was asked with its arguments is allowed whatever they are: the same call, by another resource."""
    rival, proxy = service(RIVAL), world()
    with Client(proxy.address) as agent:
        held = agent.start(RIVAL, "/x", "org.x.I", "Ask", "first")
        proxy.asked()
        proxy.adopt(policy(RULES + f"allow call {RIVAL} org.x.I.Ask\n"))
        assert said(agent.reply(held)) == ("org.x.I.Ask",)
    assert len(rival.calls) == 1


def test_a_refusal_tells_no_name_that_may_not_be_seen(world, service) -> None:
    rules = RULES + f"deny see {RIVAL}\ndeny call {RIVAL} *\nallow call {PLAYER} *\n"
    player = service(PLAYER, RIVAL)
    with Client(world(rules).address) as agent:
        for dest in (PLAYER, player.me):
            with pytest.raises(Refusal) as refused:
                agent.call(dest, "/x", RIVAL, "M")
            assert refused.value.text.startswith(
                f"refused by remit: call {dest} {RIVAL}.M /x: the policy denies it"
            )


def test_a_no_of_the_person(world, service) -> None:
    rival, proxy = service(RIVAL), world()
    with Client(proxy.address) as agent:
        held = agent.start(RIVAL, "/x", "org.x.I", "Ask")
        proxy.answer(proxy.asked()[0], "deny")
        with pytest.raises(Refusal, match="the answer was no"):
            agent.reply(held)
    assert not rival.calls


def test_a_client_that_leaves_gives_up(world, service) -> None:
    rival, proxy = service(RIVAL), world()
    with Client(proxy.address) as agent:
        agent.start(RIVAL, "/x", "org.x.I", "Ask")
        frame = proxy.asked()[0]
    until(lambda: any(f["type"] == "cancel" and f["seq"] == frame["seq"] for f in proxy.frames))
    proxy.answer(frame, "allow")
    time.sleep(0.05)
    assert not rival.calls


def test_a_name_that_changes_hands_while_asked(world, service) -> None:
    rival, proxy = service(RIVAL), world()
    with Client(proxy.address) as agent:
        held = agent.start(rival.me, "/x", "org.x.I", "Ask")
        frame = proxy.asked()[0]
        assert frame["path"].startswith(RIVAL)
        rival.client.start(BUS, BUS_PATH, BUS, "ReleaseName", RIVAL)
        with Client(proxy.address[: -len("bus")] + "bus") as other:
            until(lambda: _has_no(other, "org.freedesktop.systemd1"))
        time.sleep(0.1)
        proxy.answer(frame, "allow")
        with pytest.raises(Refusal, match="changed hands"):
            agent.reply(held)
    assert not rival.calls


def test_no_more_than_so_many_are_held(world, service) -> None:
    service(RIVAL)
    proxy = world()
    with Client(proxy.address) as agent:
        serials = [agent.start(RIVAL, "/x", "org.x.I", "Ask") for _ in range(300)]
        with pytest.raises(Refusal, match="too many"):
            agent.reply(serials[-1])
        proxy.answer(proxy.asked()[0], "allow")
        for serial in serials[:256]:
            agent.reply(serial)


def test_a_new_policy_decides_what_is_held_and_what_comes(world, service) -> None:
    service(PLAYER)
    proxy = world()
    with Client(proxy.address) as agent:
        assert agent.call(PLAYER, PATH, IFACE, "Play")
        held = agent.start(RIVAL, "/x", "org.x.I", "Ask")
        proxy.asked()
        proxy.adopt(policy(f"deny call {PLAYER} *\ndeny call {RIVAL} *\n"))
        for serial in (held, agent.start(PLAYER, PATH, IFACE, "Play")):
            with pytest.raises(Refusal):
                agent.reply(serial)


# -- names -----------------------------------------------------------------------------------------


def test_names_that_may_not_be_seen_are_not_there(world, service) -> None:
    hidden, player = service(SECRET), service(PLAYER)
    service(RIVAL)
    with Client(world().address) as agent:
        names = wire.strings(agent.bus("ListNames"))
        assert {BUS, PLAYER, player.me, agent.me} <= set(names)
        assert not {SECRET, hidden.me, RIVAL} & set(names)
        assert not any(agent.bus("NameHasOwner", SECRET).body)
        assert not any(agent.bus("NameHasOwner", hidden.me).body)
        assert said(agent.bus("GetNameOwner", PLAYER)) == (player.me,)
        for member in (
            "GetNameOwner",
            "GetConnectionUnixProcessID",
            "GetConnectionCredentials",
            "ListQueuedOwners",
        ):
            for name in (SECRET, hidden.me):
                with pytest.raises(Refusal, match="no such name"):
                    agent.bus(member, name)
        for call in (
            lambda: agent.call(SECRET, "/x", "a.b", "C"),
            lambda: agent.bus("StartServiceByName", SECRET),
        ):
            with pytest.raises(Refusal) as error:
                call()
            assert error.value.name.endswith("ServiceUnknown")
            assert "not provided by any .service files" in error.value.text
        assert bytes(agent.bus("ReleaseName", SECRET).body)[0] == 2
    assert not hidden.calls


def test_hidden_and_absent_are_told_apart_by_nothing(world, service, bus) -> None:
    hidden = service(SECRET)

    def words(client: Client, name: str) -> list[str]:
        out = []
        start = wire.pack_strings(name)
        start += bytes(-len(start) % 4) + bytes(4)
        for call in (
            *(lambda m=m: client.bus(m, name) for m in ABOUT),
            lambda: client.call(BUS, BUS_PATH, BUS, "StartServiceByName", signature="su", body=start),
            lambda: client.call(name, "/x", "a.b", "C"),
            lambda: client.call(name, "/x", "a.b", "C", flags=wire.NO_AUTO_START),
            lambda: client.call(name, "/x", "org.freedesktop.DBus.Peer", "Ping"),
        ):
            try:
                out.append(bytes(call().body).hex())
            except Refusal as e:
                out.append(str(e).replace(name, "NAME"))
        return out

    with Client(world().address) as agent, Client(bus.address) as direct:
        assert words(agent, SECRET) == words(direct, "org.absent.Name")
        assert words(agent, hidden.me) == words(direct, ":1.9999")


ABOUT = (
    "NameHasOwner", "GetNameOwner", "ListQueuedOwners", "GetConnectionUnixUser", "GetConnectionUnixProcessID",
    "GetConnectionCredentials", "ReleaseName",
)  # fmt: skip


def test_a_name_that_is_asked_about(world, service) -> None:
    rival, proxy = service(RIVAL), world()
    with Client(proxy.address) as agent:
        held = agent.start(BUS, BUS_PATH, BUS, "GetNameOwner", RIVAL)
        frame = proxy.asked()[0]
        assert (frame["ops"], frame["path"]) == (["see"], RIVAL)
        proxy.answer(frame, "allow")
        assert said(agent.reply(held)) == (rival.me,)
        held = agent.start(BUS, BUS_PATH, BUS, "NameHasOwner", RIVAL)
        proxy.answer(proxy.asked(2)[1], "deny")
        assert not any(agent.reply(held).body)


def test_changes_of_names_are_heard_of_names_that_may_be_seen(world, service) -> None:
    with Client(world().address) as agent:
        agent.bus("AddMatch", f"type='signal',sender='{BUS}',member='NameOwnerChanged'")
        hidden, player = service(SECRET), service(PLAYER)
        changed = agent.signal(BUS, "NameOwnerChanged")
        while said(changed)[0] == "org.example.Mine":
            changed = agent.signal(BUS, "NameOwnerChanged")
        assert said(changed) == (PLAYER, "", player.me)
        hidden.client.close()
        player.client.close()
        assert said(agent.signal(BUS, "NameOwnerChanged")) == (PLAYER, player.me, "")
        assert said(agent.signal(BUS, "NameOwnerChanged")) == (player.me, player.me, "")
        assert agent.quiet(lambda m: m.head.member == "NameOwnerChanged")


def test_who_did_not_ask_hears_no_change(world, service) -> None:
    with Client(world().address) as agent:
        service(PLAYER)
        assert agent.quiet(lambda m: m.head.member == "NameOwnerChanged")


def test_owning(world, bus, service) -> None:
    proxy = world()
    with Client(proxy.address) as agent, Client(bus.address) as human:
        assert agent.own("org.example.Mine") == 1
        proxy.adopt(policy(RULES + "deny own org.example.Other\n"))
        with pytest.raises(Refusal, match="refused by remit: own"):
            agent.own("org.example.Other")
        serial = human.start("org.example.Mine", "/x", "a.b", "C")
        call = agent.wait(lambda m: m.head.type == wire.CALL)
        agent.send(wire.RETURN, dest=call.head.sender, reply=call.serial, strings=("hi",))
        assert said(human.reply(serial)) == ("hi",)
        agent.send(wire.RETURN, dest=call.head.sender, reply=call.serial, strings=("again",))
        assert human.quiet(lambda m: m.head.type == wire.RETURN)
    until(lambda: ("own", "allow", "ok", "org.example.Mine", "") in proxy.acts())


def test_nobody_calls_an_agent_that_owns_nothing(world, bus) -> None:
    with Client(world().address) as agent, Client(bus.address) as human:
        with pytest.raises(Refusal) as error:
            human.call(agent.me, "/x", "a.b", "C")
        assert error.value.name.endswith("AccessDenied")
        assert agent.quiet(lambda m: m.head.type == wire.CALL)


# -- signals ---------------------------------------------------------------------------------------


def test_broadcasts_are_narrowed(world, service) -> None:
    player, rival, proxy = service(PLAYER), service(RIVAL), world()
    with Client(proxy.address) as agent:
        agent.bus("AddMatch", "")
        agent.bus("AddMatch", f"sender='{RIVAL}'")
        rival.emit("org.x.I", "Secret", "token")
        rival.emit("org.x.I", "Secret", "token", dest=agent.me)
        player.emit(IFACE, "Seeked", "x")
        assert said(agent.signal(IFACE, "Seeked")) == ("x",)
        assert agent.quiet(lambda m: m.head.member == "Secret")
        agent.bus("RemoveMatch", f"sender='{RIVAL}'")
        with pytest.raises(Refusal, match="wasn't found"):
            agent.bus("RemoveMatch", f"sender='{RIVAL}'")
        agent.bus("RemoveMatch", "")
        player.emit(IFACE, "Seeked", "y")
        assert agent.quiet(lambda m: m.head.member == "Seeked")


def test_who_may_call_an_interface_hears_it(world, service) -> None:
    rival = service(RIVAL)
    with Client(world(f"allow call {RIVAL} org.x.I.*@/x\n").address) as agent:
        agent.bus("AddMatch", f"type='signal',sender='{RIVAL}'")
        for interface, path in (("org.x.I", "/y"), ("org.x.Other", "/x"), ("org.x.I", "/x")):
            rival.emit(interface, "Changed", path=path)
        first = agent.wait(lambda m: m.head.member == "Changed")
        assert (first.head.interface, first.head.path) == ("org.x.I", "/x")
        props = "org.freedesktop.DBus.Properties"
        rival.emit(props, "PropertiesChanged", "org.x.Other")
        rival.emit(props, "PropertiesChanged", "org.x.I")
        assert said(agent.signal(props, "PropertiesChanged")) == ("org.x.I",)


def test_a_rule_that_could_match_nothing_works_once_policy_allows(world, service) -> None:
    rival, proxy = service(RIVAL), world()
    with Client(proxy.address) as agent:
        agent.bus("AddMatch", f"sender='{RIVAL}',member='Later'")
        proxy.adopt(policy(RULES + f"allow see {RIVAL}\n"))
        agent.bus("GetId")
        rival.emit("org.x.I", "Later")
        assert agent.signal("org.x.I", "Later")


def test_an_answered_call_opens_the_way_for_signals_to_the_caller(world, service) -> None:
    rival, proxy = service(RIVAL), world()
    with Client(proxy.address) as agent:
        held = agent.start(RIVAL, "/x", "org.x.I", "Ask")
        proxy.answer(proxy.asked()[0], "allow")
        agent.reply(held)
        rival.emit("org.x.Request", "Response", dest=agent.me)
        assert agent.signal("org.x.Request", "Response")


def test_emitting(world, bus) -> None:
    proxy = world()
    with Client(proxy.address) as agent, Client(bus.address) as human:
        human.bus("AddMatch", "type='signal',interface='org.x.I'")
        agent.send(wire.SIGNAL, path="/x", interface="org.x.I", member="One")
        frame = proxy.asked()[0]
        assert (frame["ops"], frame["path"]) == (["emit"], f"{agent.me} org.x.I.One /x")
        agent.own("org.example.Mine")
        agent.send(wire.SIGNAL, path="/x", interface="org.x.I", member="Two")
        assert human.signal("org.x.I", "Two").head.sender == agent.me
        agent.send(
            wire.SIGNAL, path="/x", interface=BUS, member="NameOwnerChanged", strings=("a.b", "", ":1.1")
        )
        agent.bus("GetId")
        assert human.quiet(lambda m: m.head.member == "One" or m.head.sender == agent.me)


# -- a player, a person's client and an agent's ------------------------------------------------------


def test_a_player_driven_by_a_person_and_an_agent_at_once(world, service, bus) -> None:
    player, proxy = service(PLAYER), world()
    refused: list[str] = []

    def drive(address: str, rounds: int, members: tuple[str, ...]) -> None:
        with Client(address) as client:
            for i in range(rounds):
                try:
                    client.call(PLAYER, PATH, IFACE, members[i % len(members)])
                except Refusal as e:
                    refused.append(e.text)

    both = [
        threading.Thread(target=drive, args=(bus.address, 100, ("Play", "Quit"))),
        threading.Thread(target=drive, args=(proxy.address, 100, ("Pause", "Quit"))),
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert player.members().count(f"{IFACE}.Play") == player.members().count(f"{IFACE}.Quit") == 50
    assert player.members().count(f"{IFACE}.Pause") == 50
    assert len(refused) == 50
    assert all("test.toml:4" in text for text in refused)


# -- descriptors, sizes ------------------------------------------------------------------------------


def test_descriptors_pass_both_ways(world, service) -> None:
    player = service(PLAYER)
    with Client(world().address) as agent:
        read, write = os.pipe()
        answer = agent.call(PLAYER, PATH, IFACE, "Play", "x", files=(write, write))
        os.close(write)
        assert len(player.calls[0].files) == 2
        assert len(answer.files) == 1
        os.write(answer.files[0], b"through")
        assert os.read(read, 10) == b"through"
        for fd in (read, *answer.files, *player.calls[0].files):
            os.close(fd)
        time.sleep(0.1)  # what else was open ends
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with pytest.raises(Refusal):
                agent.call(PLAYER, PATH, IFACE, "Quit", "x", files=(0, 0))
        until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_descriptors_that_do_not_fit_end_the_connection(world) -> None:
    proxy = world()
    before = len(os.listdir("/proc/self/fd"))
    for said_count, files in ((2, (0,)), (0, (0,))):
        agent = Client(proxy.address)
        raw = wire.build(
            wire.CALL, 9, path="/x", interface="a.b", member="C", dest=PLAYER, fds=said_count,
        )  # fmt: skip
        import socket

        socket.send_fds(agent.sock, [raw], list(files))
        assert agent.ended()
        agent.close()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_large_messages(world, service) -> None:
    player = service(PLAYER)
    with Client(world().address) as agent:
        for size in (100_000, 5_000_000):
            assert agent.call(PLAYER, PATH, IFACE, "Play", "a" * size)
    assert [len(m.data) > 100_000 for m in player.calls] == [True, True]


def test_who_does_not_read_is_not_read_from(world, service) -> None:
    player = service(PLAYER)
    proxy = world()
    with Client(proxy.address) as agent:
        agent.bus("AddMatch", f"sender='{PLAYER}'")
        agent.sock.setblocking(False)
        raw = b"".join(
            wire.build(wire.CALL, s, path="/x", interface=BUS, member="No", dest=BUS)
            for s in range(1000, 41000)
        )
        sent = 0
        try:
            while sent < len(raw):
                sent += agent.sock.send(raw[sent : sent + 65536])
                time.sleep(0.001)
        except BlockingIOError:
            pass
        assert sent < len(raw)
    del player
