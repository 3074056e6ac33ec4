"""Deno's permission broker: a deno that was started with ``DENO_PERMISSION_BROKER_PATH`` at ``deno.sock`` asks here before each act.

One connection of each deno, on which it waits for every answer; one JSON object a line:

    {"v": 1, "pid", "id", "datetime", "permission", "value": text|null}  ->  {"id", "result": "allow"|"deny", "reason"?}

Who asks is the kernel's word on the writer, not ``pid``. It is a program outside sessions, so the answers are bookkeeping like those of
the other verbs: decided by the policy, asked, recorded. What it then does is Deno's to hold to. What its permissions are here:

    read             read, of a directory list      write       what Deno takes it for: write and create, or write, delete and metadata
    net  host:port   connect; on this machine also listen, which Deno does not tell apart; of 0.0.0.0 or [::] listen
    net  unix:PATH   connect                        import      connect
    run              exec; Deno 2.9 does not say of what: then ``/``, which stands for all programs
    ffi              read and execute               env         use of ``secret:NAME`` where the name tells of one, else free
    sys              free: remit keeps none of it from anybody

A permission for everything at once (null) is refused, as is whatever this table does not know.

Source: Deno 2.9, runtime/permissions/broker.rs; the values as observed.
"""

from __future__ import annotations

import json
import logging
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from remit_daemon.broker.core import Refused
from remit_daemon.ledger.store import LedgerError
from remit_daemon.peers.process import PeerError, inside_session
from remit_daemon.runtime.asks import Caller
from remit_daemon.runtime.clients import described
from remit_daemon.runtime.lines import Problem
from remit_daemon.runtime.store import StoreError
from remit_policy import hosts, resources

if TYPE_CHECKING:
    from remit_daemon.peers.process import Peer
    from remit_daemon.runtime.channel import Channel
    from remit_daemon.runtime.daemon import Daemon

log = logging.getLogger("remitd.deno")

MAX_LINE = 1 << 16  # bytes: a path has 4,096
VERSION = 1
EVERYTHING = "/"  # what stands for all programs
_SECRET = re.compile(
    r"token|secret|passw|passphrase|credential|(api|access|private|signing)_?key|auth|cookie", re.I
)
_ALL = "remit gives no permission for everything at once; name what it is for"


class Ask(NamedTuple):
    """What a permission is in remit's terms; ``path``: the resource is a place, still as Deno wrote it."""

    ops: tuple[str, ...]
    resource: str
    path: bool = False


class Said(NamedTuple):
    """An answer that needs no decision."""

    allow: bool
    reason: str = ""


def meaning(permission: str, value: str | None) -> Ask | Said:
    """Return what Deno's ``permission`` on ``value`` is. Pure; the operations on a path depend on what is there (``fitting``)."""
    match permission:
        case "sys":
            return Said(True)
        case "env":
            if value is None:
                return Ask(("use",), "secret:environment")
            return Ask(("use",), f"secret:{value}") if _SECRET.search(value) else Said(True)
        case "run":
            if value is None:
                return Ask(("exec",), EVERYTHING)
            return (
                Ask(("exec",), value, path=True)
                if "/" in value
                else Said(False, "remit knows a program by its path")
            )
        case "read" | "write" | "ffi" | "net" | "import" if value is None:
            return Said(False, _ALL)
        case "read" | "write" | "ffi":
            return Ask((permission,), str(value), path=True)
        case "net" | "import":
            return _reached(str(value))
    return Said(False, f"remit does not know the permission {permission!r}")


def _reached(value: str) -> Ask | Said:
    if value.startswith("unix:"):
        return Ask(("connect",), value[5:], path=True)
    host = value.rpartition(":")[0]
    if host in resources.UNSPECIFIED:
        return Ask(("listen",), value)
    try:
        name, _ = hosts.split(value)
    except (hosts.HostError, ValueError):
        return Said(False, f"{value!r} is no host with its port")
    here = name == hosts.LOCAL or (hosts.is_address(name) and hosts.is_special(name) == "loopback")
    return Ask(("connect", "listen") if here else ("connect",), value)


def fitting(op: str, path: str) -> tuple[str, ...]:
    """Return the operations that Deno's ``op`` on the real ``path`` may come to, by what is there."""
    directory, there = os.path.isdir(path), os.path.lexists(path)
    if op == "read":
        return ("list",) if directory else ("read",)
    if op == "write":
        if not there:
            return "write", "create"
        return ("metadata", "delete") if directory else ("metadata", "write", "delete")
    return ("read", "execute") if op == "ffi" else (op,)


class Deno:
    """One accepted connection on deno.sock."""

    def __init__(self, daemon: Daemon, peer: Peer, channel: Channel) -> None:
        self._daemon = daemon
        self._peer = peer
        self._channel = channel

    async def serve(self) -> None:
        """Serve the connection until it ends, or says what is no question. Raises ConnectionError."""
        rest = bytearray()
        session = self._daemon.by_peer(self._peer.pid, self._channel.end)
        try:
            if session is not None and session.confined:
                raise PeerError(
                    f"session {session.id} connects to Deno's socket, which is for programs outside sessions"
                )
            while True:
                data, writer = await self._channel.receive()
                if not data:
                    return
                if writer is not self._peer or inside_session(writer.pid, self._daemon.supervisors()):
                    raise PeerError(
                        f"process {writer.pid} is not the deno that connected, or is inside a session"
                    )
                *lines, last = (bytes(rest) + data).split(b"\n")
                for line in lines:
                    answer = await self._line(line)
                    self._channel.send(json.dumps(answer).encode("ascii") + b"\n")
                    await self._channel.drain()
                rest = bytearray(last)
                if len(rest) > MAX_LINE:
                    raise PeerError("a line without end")
        except PeerError as e:
            log.warning("refused: %s", e)

    async def _line(self, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
            ident, version = found["id"], found["v"]
            permission, value = found["permission"], found.get("value")
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise PeerError("no question as Deno has them") from None
        if type(ident) is not int or type(permission) is not str or type(value) not in (str, type(None)):
            raise PeerError("no question as Deno has them")
        try:
            if version != VERSION:
                said = Said(False, f"remit speaks version {VERSION} of Deno's protocol")
            else:
                said = await self._said(permission, value)
        except (Refused, Problem, LedgerError, StoreError) as e:
            said = Said(False, str(e))
        if said.allow:
            return {"id": ident, "result": "allow"}
        return {"id": ident, "result": "deny", "reason": f"remit: {said.reason}"}

    async def _said(self, permission: str, value: str | None) -> Said:
        async with self._daemon.lanes.agents():
            wanted = meaning(permission, value)
        if isinstance(wanted, Said):
            return wanted
        daemon, peer = self._daemon, self._peer
        session = await daemon.clients.session(peer.pid, peer.identity, peer.pidfd)
        exe, _, cwd = described(peer.pid)
        caller = Caller(session.id, peer.pid, str(peer.proc), exe, os.path.basename(exe))
        ops, resource = wanted.ops, wanted.resource
        if wanted.path:
            resource = await daemon.verbs.files.real(session.id, os.path.join(cwd, resource))
            ops = await daemon.beside(fitting, ops[0], resource)
        if ops == ("exec",) and resource == EVERYTHING and self._some_stricter(session.id):
            return Said(False, "rules differ by program, and Deno does not say which it wants to run")
        told = await daemon.asks.settle(caller, ops, resource, note=f"asked by Deno: {permission}")
        if told.verdict == "allow":
            daemon.asks.done(told.row)
            return Said(True)
        word = "the answer was no" if told.prompt else f"the policy denies it ({told.rule})"
        return Said(False, told.message or word)

    def _some_stricter(self, session: str) -> bool:
        """Tell whether a rule about some program is stricter than the word on all of them."""
        broker = self._daemon.broker
        whole = broker.decide(session, ("exec",), EVERYTHING).verdict
        return any(rule.op == "exec" and rule.verdict > whole for rule in broker.state.bases[session].rules)
