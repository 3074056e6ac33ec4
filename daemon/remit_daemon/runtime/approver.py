"""The person's socket: the methods of ``wire.rpc`` behind approver.sock.

Only processes of this user outside every session are served. What a method takes is checked field by field; what it
does is the broker's, the ledger's and the policy's business.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import asdict
from typing import Any

from remit_daemon.broker import events as ev
from remit_daemon.broker.records import OF
from remit_daemon.broker.states import PromptState
from remit_daemon.broker.views import quiet_view
from remit_daemon.ledger.queries import Filter
from remit_daemon.peers.process import Peer, PeerError
from remit_daemon.runtime import overview, review, whose
from remit_daemon.runtime.actors import describe
from remit_daemon.runtime.bus import Failed
from remit_daemon.runtime.channel import Channel
from remit_daemon.runtime.daemon import Daemon
from remit_daemon.runtime.explained import explained
from remit_daemon.runtime.lines import Lines, Method, Params, Problem, want
from remit_daemon.runtime.policies import PROJECT_FILE, digest_of
from remit_daemon.runtime.who import of_peer
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS, NOT_FOUND
from remit_daemon.wire.words import VERSION

SURFACES = ("", "cli", "tui", "notification")
_ids = itertools.count(1)


class Approver:
    """One accepted connection on approver.sock."""

    def __init__(self, daemon: Daemon, peer: Peer, channel: Channel) -> None:
        self._daemon = daemon
        self._peer = peer
        self._ident = next(_ids)
        self._filter: Filter | None = None
        d = daemon.broker
        methods: dict[str, Method] = {
            "status": self._status,
            "sessions": lambda p: (want(p) and None) or d.sessions(),
            "stop": lambda p: self._steer(p, "stop"),
            "pause": lambda p: self._steer(p, "pause"),
            "resume": lambda p: self._steer(p, "resume"),
            "prompts": self._prompts,
            "prompt": lambda p: d.prompt(want(p, id=str)["id"]),
            "look": self._look,
            "preview": lambda p: d.preview(self._parse_answer(p)),
            "answer": lambda p: daemon.apply(self._parse_answer(p)),
            "revoke": self._revoke,
            "limits": lambda p: d.limits(want(p, agent=(str, ""))["agent"], daemon.clock()),
            "log": self._log,
            "log.page": self._page,
            "log.find": self._find,
            "log.verify": self._verify,
            "who": self._who,
            "denials": self._denials,
            "trust": self._trust,
            "reload": self._reload,
            "watch": self._watch,
            **daemon.tokens.of_person(of_peer(peer)),
            **daemon.registry.methods(),
            **overview.methods(daemon),
        }
        self._lines = Lines(channel, methods, self._admit)

    async def serve(self) -> None:
        """Serve the connection until it ends."""
        try:
            await self._lines.serve()
        finally:
            self._daemon.watchers.discard(self._notify)
            if any(self._ident in who for who in self._daemon.broker.state.looks.values()):
                self._daemon.attempt(ev.LookerGone(self._ident))

    def _admit(self, writer: Peer) -> None:
        if writer is not self._peer:
            raise PeerError(f"process {writer.pid} writes on the connection of process {self._peer.pid}")
        if not writer.alive():
            raise PeerError(f"process {writer.pid} has ended")
        self._daemon.lanes.person()

    def _status(self, params: Params) -> Params:
        want(params)
        d = self._daemon
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "sessions": len(d.live()),
            "prompts": sum(1 for p in d.broker.state.prompts.values() if p.state is PromptState.OPEN),
            "policy": {"errors": d.policies.problems(), "revision": d.broker.state.revision},
            "ledger": {"rows": d.ledger.size()},
            "limits": [x["text"] for x in d.broker.limits("", d.clock()) if x["spent"]],
            "senders": d.senders,
            "review": review.standing(d),
            "quiet": quiet_view(d.broker.state.standing, d.clock()),
            "agents": d.registry.summary(),
        }

    def _prompts(self, params: Params) -> list[Params]:
        p = want(params, all=(bool, False), missed=(bool, False))
        found = self._daemon.broker.prompts(p["all"] or p["missed"])
        return [v for v in found if v["state"] == "missed"] if p["missed"] else found

    def _steer(self, params: Params, action: str) -> Params:
        return self._daemon.apply(ev.Steer(want(params, session=str)["session"], action))

    def _look(self, params: Params) -> Params:
        p = want(params, id=str, looking=bool)
        return self._daemon.apply(ev.Look(p["id"], self._ident, p["looking"]))

    def _parse_answer(self, params: Params) -> ev.Answer:
        params = dict(params)
        duration = params.pop("for", "once")
        p = want(params, id=str, verdict=str, scope=(str, ""), message=(str, ""), via=(str, ""))
        if p["via"] not in SURFACES:
            raise Problem(INVALID_PARAMS, f"via is one of {', '.join(SURFACES[1:])}")
        if type(duration) not in (str, int):
            raise Problem(INVALID_PARAMS, "for is once, session, always or a number of seconds")
        return ev.Answer(p["id"], p["verdict"], duration, p["scope"], p["message"], via=p["via"])

    def _revoke(self, params: Params) -> Params:
        p = want(params, id=(str, ""), agent=(str, ""), all=(bool, False))
        if sum(map(bool, p.values())) != 1:
            raise Problem(INVALID_PARAMS, "revoke takes one of id, agent, all")
        return self._daemon.apply(ev.Revoke(p["id"], p["agent"], p["all"]))

    def _parse_filter(self, params: Params) -> Filter:
        try:
            return Filter.of(params)
        except (ValueError, TypeError) as e:
            raise Problem(INVALID_PARAMS, str(e)) from None

    def _log(self, params: Params) -> list[Params]:
        wanted = self._parse_filter(params)
        self._daemon.catch_up()
        return self._daemon.ledger.query(wanted)

    def _page(self, params: Params) -> Params:
        wanted = self._parse_filter(params)
        self._daemon.catch_up()
        return self._daemon.ledger.page(wanted)

    def _find(self, params: Params) -> Params:
        p = want(params, time=float)
        if not abs(p["time"]) < 1 << 33:
            raise Problem(INVALID_PARAMS, "time is seconds since the epoch")
        return {"seq": self._daemon.ledger.find(p["time"])}

    async def _verify(self, params: Params) -> Params:
        want(params)
        self._daemon.catch_up()
        return asdict(await asyncio.to_thread(self._daemon.ledger.verify))

    async def _who(self, params: Params) -> Params:
        p = want(params, path=(str, ""), pid=(int, 0), name=(str, ""), commit=(str, ""))
        if sum(map(bool, p.values())) != 1:
            raise Problem(INVALID_PARAMS, "who takes a path, a pid, a bus name or a commit")
        d = self._daemon
        if p["commit"]:
            try:
                return whose.commit(d, p["commit"])
            except ValueError as e:
                raise Problem(INVALID_PARAMS, str(e)) from None
        if p["path"]:
            found = await whose.file(d, p["path"])
            return found | {"assurance": "L3" if found["session"] else "", "note": ""}
        if p["name"]:
            try:
                return await d.bus.who(p["name"])
            except Failed as e:
                raise Problem(NOT_FOUND, str(e)) from None
        try:
            found = await describe(d, p["pid"])
        except ProcessLookupError as e:
            raise Problem(NOT_FOUND, str(e)) from None
        if not found["session"]:
            return found | {"entries": []}
        d.catch_up(found["session"])
        entries = d.ledger.query(Filter(session=found["session"], limit=1000))
        return found | {"entries": [e for e in entries if e["pid"] == p["pid"]][-20:]}

    def _denials(self, params: Params) -> list[Params]:
        p = want(params, session=(str, ""), limit=(int, 100))
        self._daemon.catch_up()
        found = self._daemon.ledger.denials(p["session"], max(0, min(p["limit"], 10_000)))
        return explained(found, self._daemon.broker.state.prompts.values())

    def _trust(self, params: Params) -> Params:
        p = want(params, dir=str, digest=str)
        directory, d = p["dir"], self._daemon
        if not directory.startswith("/"):
            raise Problem(INVALID_PARAMS, "dir must be absolute")
        try:
            found = digest_of(directory)
        except OSError:
            found = ""
        if not found:
            raise Problem(NOT_FOUND, f"no readable {PROJECT_FILE} in {directory}")
        if found != p["digest"]:
            raise Problem(CONFLICT, f"{directory}/{PROJECT_FILE} is not what was looked at; look again")
        entry = {
            "actor": "human",
            "op": "trust",
            "path": f"{directory}/{PROJECT_FILE}",
            "outcome": "ok",
            "sha256": found,
        }
        d.ledger.append([entry], sync=True)
        d.memory.trust(directory, found)
        d.publish()
        d.refresh()
        return {}

    def _reload(self, params: Params) -> Params:
        want(params)
        self._daemon.reload()
        return {"errors": self._daemon.policies.problems(), "revision": self._daemon.broker.state.revision}

    def _watch(self, params: Params) -> Params:
        p = want(params, log=(dict, None))
        self._filter = None if p["log"] is None else self._parse_filter(p["log"])
        self._daemon.watchers.add(self._notify)
        self._daemon.wake()
        return {}

    def _notify(self, method: str, params: Params) -> None:
        if method == "entry" and (self._filter is None or not _fits(params, self._filter)):
            return
        self._lines.notify(method, params)


def _fits(entry: Params, wanted: Filter) -> bool:
    """Tell whether a fresh ``entry`` is one that ``wanted`` selects."""
    for name in ("actor", "agent", "session", "op", "outcome", "rule"):
        value = getattr(wanted, name)
        chain = name == "agent" and value and entry[name].startswith(value + OF)
        if value and entry[name] != value and not chain:
            return False
    if wanted.denied and entry["verdict"] != "deny":
        return False  # what is held has no outcome yet
    if wanted.host and wanted.host not in hosts_of(entry):
        return False
    if wanted.path:
        top = wanted.path.rstrip("/")
        if not any(p == top or p.startswith(top + "/") for p in (entry["path"], entry["path2"])):
            return False
    if wanted.since is not None and entry["time"] < wanted.since:
        return False
    return wanted.until is None or entry["time"] < wanted.until


def hosts_of(entry: Params) -> list[str]:
    """Return how the host that an ``entry`` is about may be named in a filter: with its port and without."""
    resource = entry["path"]
    if entry["op"] == "request":
        resource = resource.partition("://")[2].partition("/")[0]
    elif entry["op"] not in ("connect", "resolve", "listen"):
        return []
    return [resource, resource.rpartition(":")[0]]


def agent_methods(daemon: Daemon, session: str) -> dict[str, Any]:
    """Return what agent.sock has beside the verbs, for a peer that the kernel says is inside ``session``."""
    known = daemon.broker.state.sessions[session]
    return {"delegate": lambda p: daemon.delegations.delegate(known, p), **daemon.tokens.of_session(known)}
