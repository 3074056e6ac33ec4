"""The control socket: one connection per supervisor and one per gateway, as ``wire.control`` lays down.

What each may say is a table per phase, with the fields and their types; anything else ends the
connection, with the reason in the log and, before the welcome, in a ``refused`` frame.
"""

from __future__ import annotations

import logging
import os
import shlex
from typing import Any

from remit_daemon.broker import events as ev
from remit_daemon.broker.core import Refused
from remit_daemon.broker.records import Parent, Session
from remit_daemon.ledger.store import LedgerError
from remit_daemon.peers import mark
from remit_daemon.peers.process import Peer, PeerError, inside_session, parents, supervisor_above
from remit_daemon.runtime import review
from remit_daemon.runtime.channel import Channel
from remit_daemon.runtime.daemon import Daemon
from remit_daemon.runtime.policies import SnapshotRefused, subject
from remit_daemon.runtime.store import StoreError
from remit_daemon.wire.control import (
    GATEWAY_FIRST,
    GATEWAY_THEN,
    SUPERVISOR_FIRST,
    SUPERVISOR_THEN,
    VERSION,
    of_api,
    of_gateway,
)
from remit_daemon.wire.frames import FrameError, Reader, encode

log = logging.getLogger("remitd.control")

MAX_UNSENT = (
    64 << 20
)  # bytes: a few snapshots of the largest kind; a supervisor that takes no more is dropped
MAX_TOTAL = 1 << 60  # of a lease's numbers: bytes of many years
COULD_NOT_START = 125  # exit status, as env(1) has it
USAGE = 2

_HELLO: dict[str, type] = {
    "version": int, "agent": str, "argv": list, "exe": str, "sha256": str, "cwd": str, "project": str, "home": str,
    "tty": bool, "ask": str, "policy": list, "hold": int, "tag": int, "launch": list, "session": str, "tmpdir": str,
}  # fmt: skip
_ASK: dict[str, type] = {
    "seq": int, "ops": list, "path": str, "path2": str, "pid": int, "proc": str, "exe": str, "comm": str,
    "argv": list, "source": str, "count": int, "costs": list, "short": bool,
}  # fmt: skip
_FIELDS: dict[str, dict[str, type]] = {
    "hello": _HELLO,
    "gateway": {"version": int, "session": str, "tag": int},
    "ask": _ASK,
    "cancel": {"seq": int, "why": str},
    "poke": {},
    "lease": {"limit": str, "used": int, "returned": int, "want": bool},
    "end": {"status": int},
    "delegated": {"sub": str, "error": str, "env": list},
    "over": {"sub": str},
    "subs": {"subs": list},
}


class Malformed(Exception):
    """The supervisor said something that is not in the table."""


def check(frame: Any, allowed: tuple[str, ...]) -> dict[str, Any]:
    """Return ``frame`` when it is one of ``allowed`` with all its fields. Raises Malformed, naming the fault."""
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise Malformed("a frame without a type")
    kind = frame["type"]
    if kind not in allowed:
        raise Malformed(f"{kind!r} is not expected here")
    for name, wanted in _FIELDS[kind].items():
        value = frame.get(name)
        if type(value) is not wanted:
            raise Malformed(f"{kind}: {name} must be {wanted.__name__}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise Malformed(f"{kind}: {name} must hold text only")
    return frame


class Control:
    """One accepted connection on control.sock."""

    def __init__(self, daemon: Daemon, peer: Peer, channel: Channel) -> None:
        self._daemon = daemon
        self._channel = channel
        self._session = ""
        self._peer = peer
        self._above = 0  # the pid of the supervisor whose gateway the peer is

    async def serve(self) -> None:
        """Serve the connection until it ends."""
        try:
            supervisors = self._daemon.supervisors()
            self._above = supervisor_above(self._peer.pid, supervisors)
            if not self._above and inside_session(self._peer.pid, supervisors):
                raise PeerError(f"process {self._peer.pid} is inside a session")
            await self._frames()
        except PeerError as e:
            log.warning("refused: %s", e)
            if not self._session:
                self._refuse(str(e), COULD_NOT_START)
        except (Malformed, FrameError) as e:
            log.warning("closed: %s", e)
            if not self._session:
                self._refuse(f"malformed: {e}", COULD_NOT_START)
        except (Refused, SnapshotRefused) as e:
            log.warning("refused: %s", e)
            if not self._session:
                self._refuse(str(e), USAGE)
        except (LedgerError, StoreError) as e:
            if not self._session:
                self._refuse(str(e), COULD_NOT_START)
        except ConnectionError:
            pass
        finally:
            self._close()
        if not self._session:
            await self._channel.linger()

    def _close(self) -> None:
        senders = self._daemon.gateways if self._above else self._daemon.connections
        if self._session and senders.get(self._session) == self.send:
            del senders[self._session]
            self._daemon.attempt(ev.Lost(self._session, gateway=bool(self._above)))
            for sub in () if self._above else self._daemon.broker.state.below(self._session):
                self._daemon.attempt(ev.Lost(sub))
        if self._above:
            self._daemon.gateway_of.pop(self._peer.pid, None)

    async def _frames(self) -> None:
        frames = Reader()
        while True:
            data, writer = await self._channel.receive()
            if not data:
                return
            if writer is not self._peer:
                raise PeerError(
                    f"process {writer.pid} writes on the connection of process {self._peer.pid}"
                )
            for frame in frames.feed(data):
                if self._session:
                    async with self._daemon.lanes.agents():
                        self._frame(check(frame, GATEWAY_THEN if self._above else SUPERVISOR_THEN))
                elif self._above:
                    self._gateway(check(frame, GATEWAY_FIRST))
                else:
                    await self._hello(check(frame, SUPERVISOR_FIRST))
            await self._channel.drain()

    def send(self, frame: dict[str, Any]) -> None:
        """Queue ``frame``; a supervisor that does not read is dropped, and will connect again."""
        self._channel.send(encode(frame))
        if self._channel.unsent > MAX_UNSENT:
            log.warning("session %s does not read; dropped", self._session)
            self._channel.abort()

    def _refuse(self, text: str, code: int) -> None:
        self.send({"type": "refused", "error": text, "code": code})

    async def _hello(self, hello: dict[str, Any]) -> None:
        daemon, peer = self._daemon, self._peer
        self._check_version(hello["version"])
        if not mark.is_tag(hello["tag"]):
            raise Malformed("hello: tag is no session mark")
        for name in ("project", "home", "cwd"):
            if not hello[name].startswith("/"):
                raise Malformed(f"hello: {name} must be absolute")
        program = None if hello["session"] else await daemon.registry.program_of(hello)
        known = self._resume(hello, peer) if hello["session"] else self._new(hello, peer)
        daemon.look_at_policy()
        whom = subject(known.agent, hello)
        base = daemon.policies.snapshot(whom)
        fresh = Session(
            known.id, known.agent, peer.pid, peer.identity, hello["tag"], hello["project"], tuple(hello["argv"]),
            known.started, ask=hello["ask"], net_all=base.net_all, hello=_kept(hello),
        )  # fmt: skip
        told = (
            ""
            if hello["session"]
            else daemon.registry.started(known.agent, program, daemon.policies.asks_on_change(whom))
        )
        daemon.connections[known.id] = self.send
        try:
            # Nothing but the welcome may go first, so what the broker sends waits for it.
            held: list[dict[str, Any]] = []
            daemon.connections[known.id] = held.append
            daemon.apply(ev.Started(fresh, base))
        except BaseException:
            daemon.connections.pop(known.id, None)
            raise
        self._session = known.id
        daemon.connections[known.id] = self.send
        daemon.guard(known.id, os.dup(peer.pidfd))
        withheld = daemon.policies.withheld(whom)
        suspended = review.standing(daemon)["suspended"]
        shown = bool(daemon.watchers) or daemon.bus.connected
        said = _warnings(fresh, withheld, told, suspended, daemon.policies.problems(), shown)
        self._welcome(known, "" if hello["session"] else said)
        for frame in held:
            self.send(frame)
        log.info("session %s: %s, supervisor %d", known.id, known.agent, peer.pid)

    def _gateway(self, first: dict[str, Any]) -> None:
        daemon, ident = self._daemon, first["session"]
        self._check_version(first["version"])
        known = daemon.broker.state.sessions.get(ident)
        if known is None or not known.live or ident not in daemon.broker.state.bases:
            raise Refused(0, f"session {ident} is not running")
        if known.pid != self._above or known.tag != first["tag"] or not daemon.supervisor_alive(ident):
            raise PeerError(f"process {self._above} is not the supervisor of session {ident}")
        daemon.apply(ev.Lost(ident, gateway=True))
        self._session = ident
        daemon.gateways[ident] = self.send
        assert self._peer is not None
        daemon.gateway_of[self._peer.pid] = ident
        self._welcome(known, "")
        log.info("session %s: its gateway is here", ident)

    def _check_version(self, version: int) -> None:
        if version != VERSION:
            raise Malformed(f"version {version} is not {VERSION}; is another version of remit running?")

    def _welcome(self, session: Session, message: str) -> None:
        text, revision = self._daemon.broker.snapshot(session.id)
        self.send(
            {
                "type": "welcome",
                "session": session.id,
                "agent": session.agent,
                "snapshot": text,
                "revision": revision,
                "message": message,
            }
        )

    def _new(self, hello: dict[str, Any], peer: Peer) -> Session:
        daemon = self._daemon
        if daemon.by_tag(hello["tag"]) is not None:
            raise Malformed("hello: this mark is another session's")
        agent = hello["agent"] or daemon.policies.name_of(hello["exe"], hello["argv"])
        while (ident := "s" + os.urandom(3).hex()[:5]) in daemon.broker.state.sessions:
            pass
        return Session(
            ident,
            agent,
            peer.pid,
            peer.identity,
            hello["tag"],
            hello["project"],
            tuple(hello["argv"]),
            daemon.clock(),
        )

    def _resume(self, hello: dict[str, Any], peer: Peer) -> Session:
        known = self._daemon.broker.state.sessions.get(hello["session"])
        if known is None or not known.live:
            raise Refused(0, f"session {hello['session']} is not running")
        if known.identity != peer.identity or known.tag != hello["tag"]:
            raise PeerError(f"process {peer.pid} is not the supervisor of session {known.id}")
        return known

    def _frame(self, frame: dict[str, Any]) -> None:
        daemon, session = self._daemon, self._session
        if "sub" in frame:
            if self._above or not self._is_mine(frame["sub"]):
                raise Malformed(f"{frame['type']}: {frame['sub']!r} is no sub-session of this session")
            session = frame["sub"]
            if not daemon.broker.state.sessions[session].live and frame["type"] not in (
                "delegated",
                "lease",
            ):
                return  # it crossed with its end
        seq = frame.get("seq", 0)
        if "seq" in frame and (of_api(seq) or of_gateway(seq) != bool(self._above)):
            raise Malformed(f"{frame['type']}: seq {frame['seq']} is not one of this side's")
        match frame["type"]:
            case "ask":
                fields: dict[str, Any] = {
                    n: tuple(v) if isinstance(v := frame[n], list) else v for n in _ASK
                }
                chain = tuple(
                    Parent(*p) for p in parents(frame["pid"], daemon.broker.state.sessions[session].pid)
                )
                try:
                    daemon.apply(ev.Ask(session, chain=chain, **fields))
                except (Refused, LedgerError, StoreError) as e:
                    # What cannot be asked or recorded is denied.
                    log.warning("session %s: ask %d: %s", session, frame["seq"], e)
                    refusal = {
                        "type": "answer",
                        "seq": frame["seq"],
                        "verdict": "deny",
                        "prompt": "",
                        "message": str(e),
                    }
                    self.send(refusal if session == self._session else {**refusal, "sub": session})
            case "cancel":
                if frame["why"] not in ("gone", "expired"):
                    raise Malformed(f"cancel: no reason {frame['why']!r}")
                daemon.attempt(ev.Cancel(session, frame["seq"], frame["why"]))
            case "lease":
                # A gateway is told from one before it by its process.
                point = f"{session}/{self._peer.identity}" if self._above else session
                if (
                    not 0
                    <= min(frame["used"], frame["returned"])
                    <= max(frame["used"], frame["returned"])
                    <= MAX_TOTAL
                ):
                    raise Malformed("lease: totals are out of range")
                daemon.attempt(
                    ev.Report(
                        session, point, frame["limit"], frame["used"], frame["returned"], frame["want"]
                    )
                )
            case "poke":
                for one in (session, *([] if self._above else daemon.broker.state.below(session))):
                    daemon.poke(one)
            case "delegated":
                daemon.delegations.made(session, frame["error"], frame["env"])
            case "over":
                daemon.finish(session, None)
            case "subs":
                self._take_up(frame["subs"])
            case "end":
                daemon.connections.pop(session, None)
                daemon.gateways.pop(session, None)
                tty = daemon.broker.state.sessions[session].hello["tty"]
                daemon.finish(session, frame["status"], self.send if tty else None)

    def _is_mine(self, sub: object) -> bool:
        state = self._daemon.broker.state
        return isinstance(sub, str) and sub in state.sessions and self._session in state.chain(sub)[1:]

    def _take_up(self, subs: list[str]) -> None:
        """Go on with the sub-sessions that the supervisor has; the others ended while nobody listened."""
        daemon = self._daemon
        state = daemon.broker.state
        for sub in subs:
            if not self._is_mine(sub):
                raise Malformed(f"subs: {sub!r} is no sub-session of this session")
            if not state.sessions[sub].live or any(one not in state.bases for one in state.chain(sub)):
                daemon.tell(sub, {"type": "stop"})
                continue
            daemon.attempt(ev.Lost(sub))
            text, revision = daemon.broker.snapshot(sub)
            daemon.tell(sub, {"type": "snapshot", "snapshot": text, "revision": revision})
        for sub in state.below(self._session):
            if sub not in subs:
                daemon.finish(sub, None)


def _kept(hello: dict[str, Any]) -> dict[str, Any]:
    return {name: hello[name] for name in _HELLO if name != "session"}


def _warnings(
    session: Session,
    withheld: tuple[str, ...],
    told: str,
    suspended: int,
    problems: list[dict[str, Any]],
    shown: bool,
) -> str:
    lines = [told] if told else []
    if session.hello["tty"] and session.ask == "prompt" and not shown:
        lines.append("nothing shows you its prompts yet: keep `remit tui` open in another terminal")
    if problems:
        one = problems[0]
        lines.append(
            f"WARNING: {one['file']}:{one['line']}: {one['message']}; the last good policy is in force (`remit policy check`)"
        )
    if suspended:
        were = "grants were" if suspended > 1 else "grant was"
        lines.append(f"{suspended} {were} suspended, not having been used for long: `remit review`")
    if withheld:
        lines.append(
            f"see that {session.agent} gets: {shlex.join(withheld)} (a sandbox of its own cannot work in here)"
        )
    if session.net_all:
        lines.append("WARNING: the network is unmediated for this session")
    if session.ask == "learn":
        lines.append(
            "LEARNING: what no rule is about and is not dangerous is ALLOWED without asking, and recorded;"
            f" afterwards: `remit learn {session.id}`"
        )
    if session.ask == "allow-once":
        lines.append(
            "WARNING: what would be asked is ALLOWED without asking (--ask allow-once); for trials only"
        )
    if os.path.realpath(session.project) == os.path.realpath(session.hello["home"]):
        lines.append("WARNING: the project is your whole home directory; use --project or change into one")
    return "\n".join(lines)
