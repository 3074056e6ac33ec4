"""Serving an agent's connection to a bus: a connection of our own, the handshake on both sides, then ``connection``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from remit_daemon.gateway.dbus import address as addresses
from remit_daemon.gateway.dbus import sasl
from remit_daemon.gateway.dbus.classify import BUS
from remit_daemon.gateway.dbus.connection import Connection
from remit_daemon.gateway.dbus.link import Shared
from remit_daemon.gateway.dbus.wire import Malformed
from remit_policy.resources import bus_resource

if TYPE_CHECKING:
    import socket

    from remit_daemon.gateway.authority import Origin
    from remit_daemon.gateway.context import Context

MAX_CONNECTIONS = 512  # of one session at once
_RULE = "built-in: the bus"


async def serve_bus(ctx: Context, client: socket.socket, origin: Origin, which: str, address: str) -> None:
    """Serve the agent's connection until it ends. ``which`` is session or system, ``address`` the bus's own.

    ``client`` stays the caller's to close. Raises nothing but CancelledError.
    """
    resource = bus_resource(which == "system", BUS)
    client.setblocking(False)
    shared = ctx.parts.setdefault("dbus", Shared())
    assert isinstance(shared, Shared)
    if shared.connections >= MAX_CONNECTIONS:
        ctx.authority.refuse(
            "call", resource, origin, "too many connections to the bus", "built-in: limits"
        )
        return
    shared.connections += 1
    try:
        await _serve(ctx, client, origin, which, address, shared)
    finally:
        shared.connections -= 1


async def _serve(
    ctx: Context, client: socket.socket, origin: Origin, which: str, address: str, shared: Shared
) -> None:
    resource = bus_resource(which == "system", BUS)
    try:
        bus = await addresses.connect(address, os.environ.get("XDG_RUNTIME_DIR", ""))
    except OSError as e:
        ctx.authority.fault("call", f"the {which} bus cannot be reached: {e}")
        return
    with bus:
        try:
            shaken = await sasl.shake(client, bus)
        except Malformed as e:
            ctx.authority.refuse("call", resource, origin, f"handshake: {e}", _RULE)
            return
        except (EOFError, OSError, TimeoutError):
            return
        connection = Connection(ctx, client, bus, origin, which == "system", shaken.files, shared)
        await connection.run(shaken)
