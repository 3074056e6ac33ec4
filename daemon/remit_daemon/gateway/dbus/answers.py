"""What the gateway says itself, in the form in which the bus would have said it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.classify import ACCESS_DENIED, BUS
from remit_daemon.gateway.dbus.wire import ERROR, RETURN

if TYPE_CHECKING:
    from remit_daemon.gateway.authority import Refused
    from remit_daemon.gateway.dbus.classify import Act

MAX_TEXT = 4000  # characters of an error's text
_TO_CALLER = "refused by remit: this program is confined and serves nobody"


def reason(refused: Refused, said: str = "") -> str:
    """Return the text of a refusal; ``said`` stands for its resource when the agent may not know that name."""
    text = f"refused by remit: {refused.op} {said or refused.resource}: {refused.reason}"
    text += f" ({refused.rule})" if refused.rule else ""
    return text + (f"; {refused.how}" if refused.how else "")


def as_bus(act: Act, serial: int, reply: int, to: str) -> bytes:
    """Return the bus's answer ``act`` to the agent's call ``reply``: an error, a number or nothing."""
    if act.error:
        return wire.build(
            ERROR, serial, error=act.error, reply=reply, dest=to, sender=BUS, signature="s",
            body=wire.pack_strings(_plain(act.text)),
        )  # fmt: skip
    body = wire.pack_number(act.body) if act.signature else b""
    return wire.build(RETURN, serial, reply=reply, dest=to, sender=BUS, signature=act.signature, body=body)


def to_caller(serial: int, reply: int, to: str) -> bytes:
    """Return the answer to another program's call that does not reach the agent."""
    body = wire.pack_strings(_TO_CALLER)
    return wire.build(ERROR, serial, error=ACCESS_DENIED, reply=reply, dest=to, signature="s", body=body)


def _plain(text: str) -> str:
    """Return ``text`` as a D-Bus string can hold it."""
    return text[:MAX_TEXT].replace("\0", "\\x00").encode("utf-8", "replace").decode()
