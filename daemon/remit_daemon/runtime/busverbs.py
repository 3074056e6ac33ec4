"""The verbs as ``dev.remit.Broker1`` has them on the session bus: the same words, in D-Bus's types.

    /dev/remit/Broker1   dev.remit.Broker1
        Hello(a{sv} options) -> a{sv}                     agent s, project s: as agent.sock's hello
        WhoAmI() -> a{sv}
        Check(s op, s resource, a{sv} options) -> a{sv}   argv as
        Request(s op, s resource, a{sv} options) -> a{sv} argv as, purpose s, wait u
        Intend(s purpose, as resources)
        Open(s path, s mode, a{sv} options) -> (s path, h)
        Connect(s host, q port, a{sv} options) -> (s address, h)
        Call(s name, s path, s interface, s member, s signature, s args, a{sv} options) -> (s signature, s args, u descriptors)
                                                          args are a JSON list; start b, purpose s, wait u
        Denials(u limit) -> aa{sv}
    /dev/remit/Broker1   dev.remit.Broker1.Token
        Call(s method, s params) -> s result              agent.sock's token methods ("introspect", "metadata" …), JSON both ways

What each means is in ``wire.rpc``. A refusal is the error ``dev.remit.Error.Denied``: the reason as text, then what was refused, a{sv}.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from remit_daemon.broker.core import Refused
from remit_daemon.gateway.dbus.values import types
from remit_daemon.ledger.store import LedgerError
from remit_daemon.runtime.lines import ByCaller, Problem
from remit_daemon.runtime.store import StoreError
from remit_daemon.wire.rpc import (
    BUSY,
    CONFLICT,
    DENIED,
    FAILED,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    NOT_FOUND,
    REFUSED,
    TOKEN_REFUSED,
)

if TYPE_CHECKING:
    from remit_daemon.runtime.asks import Caller
    from remit_daemon.runtime.daemon import Daemon

VERBS, TOKEN = "dev.remit.Broker1", "dev.remit.Broker1.Token"
MAX_JSON = 1 << 18  # characters of what is given as JSON

# interface, member → signature in, signature out
METHODS = {
    (VERBS, "Hello"): ("a{sv}", "a{sv}"),
    (VERBS, "WhoAmI"): ("", "a{sv}"),
    (VERBS, "Check"): ("ssa{sv}", "a{sv}"),
    (VERBS, "Request"): ("ssa{sv}", "a{sv}"),
    (VERBS, "Intend"): ("sas", ""),
    (VERBS, "Open"): ("ssa{sv}", "sh"),
    (VERBS, "Connect"): ("sqa{sv}", "sh"),
    (VERBS, "Call"): ("ssssssa{sv}", "ssu"),
    (VERBS, "Denials"): ("u", "aa{sv}"),
    (TOKEN, "Call"): ("ss", "s"),
}
_CALLED = ("name", "path", "interface", "member", "signature")
_KINDS: dict[type, str] = {dict: "object", list: "list"}
_ERRORS = {
    DENIED: "dev.remit.Error.Denied",
    FAILED: "dev.remit.Error.App",
    TOKEN_REFUSED: "dev.remit.Error.Token",
    CONFLICT: "dev.remit.Error.Conflict",
    NOT_FOUND: "dev.remit.Error.NotFound",
    BUSY: "org.freedesktop.DBus.Error.LimitsExceeded",
    REFUSED: "org.freedesktop.DBus.Error.AccessDenied",
    INVALID_PARAMS: "org.freedesktop.DBus.Error.InvalidArgs",
    METHOD_NOT_FOUND: "org.freedesktop.DBus.Error.UnknownMethod",
}


class Answer(NamedTuple):
    """A method's return: the body in the out signature's types (variants bare), and descriptors to send and close."""

    body: list[Any]
    fds: list[int]


class BusError(Exception):
    """A call that fails, with its D-Bus error name and what it adds."""

    def __init__(self, kind: str, text: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.kind = kind
        self.data = data or {}


async def answer(daemon: Daemon, caller: Caller, interface: str, member: str, body: list[Any]) -> Answer:
    """Return what a method of METHODS gives ``caller`` for ``body`` (variants bare). Raises BusError."""
    try:
        return await _answer(daemon, caller, interface, member, body)
    except Problem as e:
        data = e.data if isinstance(e.data, dict) else {}
        raise BusError(_ERRORS.get(e.code, "dev.remit.Error.Failed"), str(e), data) from None
    except Refused as e:
        raise BusError(_ERRORS.get(e.code, "dev.remit.Error.Failed"), str(e)) from None
    except (LedgerError, StoreError) as e:
        raise BusError("dev.remit.Error.Failed", str(e)) from None


async def _answer(daemon: Daemon, caller: Caller, interface: str, member: str, body: list[Any]) -> Answer:
    verbs = daemon.verbs
    if interface == TOKEN:
        return Answer([await _token(daemon, caller, body[0], body[1])], [])
    match member:
        case "Hello" | "WhoAmI":
            return Answer([verbs.whoami(caller)], [])
        case "Check":
            return Answer([await verbs.check(caller, {"op": body[0], "resource": body[1], **body[2]})], [])
        case "Request":
            return Answer(
                [await verbs.request(caller, {"op": body[0], "resource": body[1], **body[2]})], []
            )
        case "Intend":
            await verbs.intend(caller, {"purpose": body[0], "resources": body[1]})
            return Answer([], [])
        case "Open":
            found, fd = await verbs.open(caller, {"path": body[0], "mode": body[1] or "read", **body[2]})
            return Answer([found["path"], 0], [fd])
        case "Connect":
            found, fd = await verbs.connect(caller, {"host": body[0], "port": body[1], **body[2]})
            return Answer([found["address"], 0], [fd])
        case "Call":
            named = dict(zip(_CALLED, body[:5], strict=True))
            reply = await verbs.call(caller, {**named, "args": _json(body[5] or "[]", list), **body[6]})
            return Answer([reply["signature"], _text(reply["args"]), reply["descriptors"]], [])
        case "Denials":
            return Answer([await verbs.denials(caller, {"limit": body[0]})], [])
    raise BusError("org.freedesktop.DBus.Error.UnknownMethod", f"no method {member}")


async def _token(daemon: Daemon, caller: Caller, method: str, text: str) -> str:
    """Return the JSON result of agent.sock's ``token.METHOD`` (``token`` itself: "")."""
    name = f"token.{method}" if method else "token"
    session = daemon.broker.state.sessions[caller.session]
    if session.confined:
        methods = daemon.tokens.of_session(session)
    else:
        who = daemon.clients.who(session.id)
        methods = daemon.tokens.of_client(who)
        methods["token.introspect"] = daemon.tokens.of_person(who)["token.introspect"]
    found = methods.get(name)
    if found is None:
        raise Problem(METHOD_NOT_FOUND, f"no method {name!r} here")
    params = _json(text or "{}", dict)
    assert not isinstance(found, ByCaller)
    result = found(params)
    if hasattr(result, "__await__"):
        result = await result
    return _text(result)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _json(text: str, kind: type) -> Any:
    try:
        found = json.loads(text) if len(text) <= MAX_JSON else None
    except (ValueError, RecursionError):
        found = None
    if type(found) is not kind:
        raise Problem(INVALID_PARAMS, f"that is no JSON {_KINDS[kind]} of at most {MAX_JSON} characters")
    return found


def introspection() -> str:
    """Return the XML of the two interfaces."""
    out = []
    for interface in (VERBS, TOKEN):
        out.append(f'  <interface name="{interface}">')
        for (where, member), (taken, given) in METHODS.items():
            if where == interface:
                args = [f'<arg type="{t}" direction="in"/>' for t in types(taken)]
                args += [f'<arg type="{t}" direction="out"/>' for t in types(given)]
                out.append(f'    <method name="{member}">{"".join(args)}</method>')
        out.append("  </interface>")
    return "\n".join(out)
