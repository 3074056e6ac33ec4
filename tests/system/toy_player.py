"""A toy media player as its library would have it (dbus-next), and clients that drive it.

toy_player.py serve            own org.mpris.MediaPlayer2.toy, print each call
toy_player.py drive MEMBER…    call each in turn, as a proxy object with introspection; print what came of it
toy_player.py listen SECONDS   print each change of a property that is heard
"""

from __future__ import annotations

import asyncio
import sys

from dbus_next import DBusError, Variant
from dbus_next.aio import MessageBus
from dbus_next.constants import PropertyAccess
from dbus_next.service import ServiceInterface, dbus_property, method

NAME, PATH, FACE = "org.mpris.MediaPlayer2.toy", "/org/mpris/MediaPlayer2", "org.mpris.MediaPlayer2.Player"


class Player(ServiceInterface):
    def __init__(self) -> None:
        super().__init__(FACE)
        self._status = "Stopped"

    def _now(self, status: str) -> None:
        self._status = status
        print(status, flush=True)
        self.emit_properties_changed({"PlaybackStatus": status})

    @method()
    def Play(self):
        self._now("Playing")

    @method()
    def Pause(self):
        self._now("Paused")

    @method()
    def OpenUri(self, uri: s):  # type: ignore[name-defined]  # noqa: F821
        self._now("Open " + uri)

    @dbus_property(access=PropertyAccess.READ)
    def PlaybackStatus(self) -> s:  # type: ignore[name-defined]  # noqa: F821
        return self._status


async def serve() -> None:
    bus = await MessageBus().connect()
    bus.export(PATH, Player())
    await bus.request_name(NAME)
    print("ready", flush=True)
    await asyncio.sleep(600)


async def drive(members: list[str]) -> None:
    bus = await MessageBus().connect()
    seen = await bus.introspect(NAME, PATH)
    player = bus.get_proxy_object(NAME, PATH, seen).get_interface(FACE)
    for member in members:
        try:
            if member == "open_uri":
                await player.call_open_uri("file:///etc/passwd")
            elif member == "status":
                print("status", await player.get_playback_status(), flush=True)
                continue
            else:
                await getattr(player, "call_" + member)()
            print(member, "done", flush=True)
        except DBusError as e:
            print(member, e.type, e.text, flush=True)


async def listen(seconds: float) -> None:
    bus = await MessageBus().connect()
    seen = await bus.introspect(NAME, PATH)
    properties = bus.get_proxy_object(NAME, PATH, seen).get_interface("org.freedesktop.DBus.Properties")

    def changed(interface: str, values: dict[str, Variant], _: list[str]) -> None:
        print(interface, *(f"{k}={v.value}" for k, v in values.items()), flush=True)

    properties.on_properties_changed(changed)
    print("listening", flush=True)
    await asyncio.sleep(seconds)


async def main(words: list[str]) -> None:
    if words[0] == "serve":
        await serve()
    elif words[0] == "drive":
        await drive(words[1:])
    else:
        await listen(float(words[1]))


asyncio.run(main(sys.argv[1:]))
