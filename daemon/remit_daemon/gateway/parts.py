"""The gateway's parts by name, loaded when they are first needed: most sessions never speak D-Bus.

A part that is missing refuses: its ``of`` raises ImportError, which whoever serves turns into a closed connection.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

_HTTP = "remit_daemon.gateway.http.serve"
_DBUS = "remit_daemon.gateway.dbus.serve"

PARTS = {
    "serve_transparent": _HTTP,  # (ctx, client, origin, ip, port, names, upstream, permit)
    "serve_refused": _HTTP,  # (ctx, client, origin, refused): the refusal in a form that the client can read, if it has one
    "serve_proxy": _HTTP,  # (ctx, client, origin)
    "prepare_secrets": _HTTP,  # (ctx): fills ctx.placeholders before `ready`
    "serve_bus": _DBUS,  # (ctx, client, origin, which, address)
}


def of(name: str) -> Any:
    """Return the function ``name`` of PARTS. Raises ImportError when this build has none."""
    module = import_module(PARTS[name])
    found = getattr(module, name, None)
    if found is None:
        raise ImportError(f"{PARTS[name]} has no {name}")
    return found
