"""Agents by name: what was seen under each, what a changed program may keep, and running processes that were given a name.

An adopted process is not confined: the name is bookkeeping, for it and for what it starts, until it ends. Every surface says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from remit_daemon.broker import events as ev
from remit_daemon.broker.agents import ADOPTED, LAUNCHED, REGISTERED, KnownAgent, Program, seen
from remit_daemon.broker.state import before_change
from remit_daemon.ledger.store import LedgerError
from remit_daemon.peers.attest import Attestation, assurance
from remit_daemon.peers.process import PeerError, alive, ancestors, identify, inside_session
from remit_daemon.peers.publisher import publisher_of
from remit_daemon.peers.scripts import Kind, interpreter, script_of
from remit_daemon.runtime.lines import Params, Problem, want
from remit_daemon.runtime.store import StoreError
from remit_daemon.wire.escape import escape
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS, NOT_FOUND
from remit_daemon.wire.words import UNCONFINED

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon
    from remit_daemon.runtime.lines import Method

log = logging.getLogger("remitd.agents")

MAX_AGENTS = 1000  # names; each is started, registered or adopted by the person
MAX_ADOPTED = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Adopted:
    """A running process that was given a name; ``pidfd`` is ours."""

    agent: str
    pid: int
    pidfd: int
    identity: str
    since: float


class Registry:
    """See the module's text."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._agents = daemon.memory.agents()
        self._adopted: dict[int, Adopted] = {}
        daemon.broker.state.withheld = {
            a.name: a.changed for a in self._agents.values() if a.pending and a.changed
        }

    def methods(self) -> dict[str, Method]:
        """Return the methods of approver.sock."""
        return {
            "agents": lambda p: (want(p) and None) or [self._view(a) for a in self._agents.values()],
            "agent": lambda p: self._view(self._named(want(p, name=str)["name"])),
            "agent.register": self._register,
            "agent.forget": self._forget,
            "agent.update": self._update,
            "adopt": self._adopt,
        }

    def summary(self) -> Params:
        """Return what ``status`` says: how many names are known, whose answers wait, and the adopted processes."""
        return {
            "known": len(self._agents),
            "pending": sorted(a.name for a in self._agents.values() if a.pending),
            "adopted": sorted(a.pid for a in self._adopted.values() if alive(a.pidfd)),
        }

    # -- sessions ----------------------------------------------------------------------------------

    async def program_of(self, hello: dict[str, Any]) -> Program | None:
        """Return the program that a supervisor's ``hello`` starts, by the script where it starts an interpreter; None when it has no digest."""
        path, digest, by, now = hello["exe"], hello["sha256"], "", self._daemon.clock()
        name = interpreter(path)
        if name:
            kind, script = script_of(name, hello["argv"])
            if kind is not Kind.FILE:
                return None
            try:
                path, by = os.path.realpath(os.path.join(hello["cwd"], script)), digest
                digest = await self._daemon.hash_file(path)
            except (OSError, ValueError) as e:
                log.info("%r is not attested: %s", script, e)
                return None
        return Program(digest, path, LAUNCHED, now, now, by) if digest else None

    def started(self, name: str, program: Program | None, ask: bool) -> str:
        """Take note that a session of ``name`` starts with ``program``; returns what the person is to be told, "" for nothing.

        ``ask``: what was granted before waits when the program is new. Raises LedgerError, StoreError.
        """
        if program is None:
            return ""
        now = self._daemon.clock()
        known = self._agents.get(name)
        if known is None and len(self._agents) >= MAX_AGENTS:
            log.warning("more than %d agents' names; %s is not kept", MAX_AGENTS, name)
            return ""
        found, before = seen(known, name, program)
        if before is not None:
            found = replace(found, changed=now, pending=found.pending or ask)
            note = f"program changed: {before.digest} {before.path} is now {program.digest} {program.path}"
            self._record("remit", name, "changed", note, program)
        elif found.pending and not ask:
            found = replace(found, pending=False)
        if (found.pending and before is not None) or found.pending != (
            name in self._daemon.broker.state.withheld
        ):
            self._daemon.apply(ev.Withhold(name, found.pending))
        self._keep(found)
        if program.digest not in {p.digest for p in (known.programs if known else ())}:
            self._daemon.spawn(self._look_up_publisher(name, program))
        return self._told(found, before, program)

    def _told(self, agent: KnownAgent, before: Program | None, program: Program) -> str:
        """Say it where something depends on it: a changed program without grants has nothing that could be carried over."""
        count = self._granted(agent)
        if not count or (before is None and not agent.pending):
            return ""
        answers = f"{count} remembered answer{'s' * (count != 1)}"
        name = escape(agent.name)
        if before is not None and before.path != program.path:
            head = f"{name} is {escape(program.path)} now, another program than on {_day(before.last_seen)}"
        else:
            since = before.first_seen if before is not None else agent.changed or agent.created
            head = f"{name}'s program changed since {_day(since)}"
        word = f"remit agent update {shlex.quote(name)}"
        if agent.pending:
            return f"{head}: {answers} wait{'s' * (count == 1)} for `{word} --keep` or `--drop`"
        return f"{head}: {answers} kept until you say otherwise (`{word} --drop`)"

    def _granted(self, agent: KnownAgent) -> int:
        """Return how many answers for longer than a session are from before the last change."""
        return sum(
            1
            for g in self._daemon.broker.state.grants.values()
            if g.agent == agent.name and before_change(g, agent.changed or 0.0)
        )

    async def _look_up_publisher(self, name: str, program: Program) -> None:
        note = await self._daemon.beside(publisher_of, program.path)
        agent = self._agents.get(name)
        now = next((p for p in agent.programs if p.digest == program.digest), None) if agent else None
        if note and agent is not None and now is not None:
            try:
                self._keep(agent.updated(replace(now, publisher=note)))
            except StoreError as e:
                log.error("%s", e)

    def _keep(self, agent: KnownAgent) -> None:
        self._daemon.memory.keep_agent(agent)
        self._agents[agent.name] = agent

    def _record(
        self, actor: str, name: str, outcome: str, note: str, program: Program | None = None
    ) -> None:
        entry: dict[str, Any] = {
            "actor": actor,
            "op": "agent",
            "agent": name,
            "outcome": outcome,
            "note": note,
        }
        if program is not None:
            entry |= {"exe": program.path, "sha256": program.digest}
        self._daemon.ledger.append([entry], sync=True)
        self._daemon.publish()

    # -- the person's methods ----------------------------------------------------------------------

    def _named(self, name: str) -> KnownAgent:
        try:
            return self._agents[name]
        except KeyError:
            raise Problem(NOT_FOUND, f"no agent is known as {name!r}") from None

    def _view(self, agent: KnownAgent) -> Params:
        programs = sorted(agent.programs, key=lambda p: -p.last_seen)
        fields = ("digest", "path", "how", "first_seen", "last_seen", "interpreter_digest", "publisher")
        grants = [g for g in self._daemon.broker.state.grants.values() if g.agent == agent.name]
        return {
            "name": agent.name,
            "created": agent.created,
            "changed": agent.changed,
            "pending": agent.pending,
            "grants": len(grants),
            "programs": [{f: getattr(p, f) for f in fields} for p in programs],
            "adopted": [a.pid for a in self._adopted.values() if a.agent == agent.name and alive(a.pidfd)],
        }

    async def _register(self, params: Params) -> Params:
        p = want(params, name=str, pid=(int, 0), exe=(str, ""), script=(str, ""))
        _check_name(p["name"])
        if bool(p["pid"]) == bool(p["exe"]) or (p["script"] and not p["exe"]):
            raise Problem(INVALID_PARAMS, "register takes a pid, or exe and perhaps script")
        if p["pid"]:
            pidfd, _ = self._hold(p["pid"])
            try:
                found = await self._daemon.attest(p["pid"], pidfd, "person")
            finally:
                os.close(pidfd)
            program = self._program(found, REGISTERED)
            if program is None:
                raise Problem(CONFLICT, f"process {p['pid']}: {found.words()}")
        else:
            program = await self._program_at(p["exe"], p["script"])
        return self._view(await self._learn(p["name"], program))

    async def _program_at(self, exe: str, script: str) -> Program:
        digest = await self._digest_of(exe)
        own = await self._digest_of(script) if script else ""
        if not script and interpreter(os.path.realpath(exe)):
            raise Problem(INVALID_PARAMS, f"{exe} is an interpreter: say which script it runs, with script")
        now = self._daemon.clock()
        return Program(
            own or digest, os.path.realpath(script or exe), REGISTERED, now, now, digest if own else ""
        )

    async def _digest_of(self, path: str) -> str:
        if not path.startswith("/"):
            raise Problem(INVALID_PARAMS, f"{path!r} must be absolute")
        try:
            return await self._daemon.hash_file(path)
        except (OSError, ValueError) as e:
            raise Problem(NOT_FOUND, f"cannot hash {path}: {getattr(e, 'strerror', None) or e}") from None

    async def _learn(self, name: str, program: Program) -> KnownAgent:
        """Take ``program`` up under ``name``: the person says that it is this agent's, so nothing has changed."""
        if name not in self._agents and len(self._agents) >= MAX_AGENTS:
            raise Problem(CONFLICT, f"more than {MAX_AGENTS} agents' names")
        publisher = await self._daemon.beside(publisher_of, program.path)
        program = replace(program, publisher=publisher)
        note = f"{program.digest} {program.path}" + (f" ({publisher})" if publisher else "")
        self._record("human", name, program.how, note, program)
        found, _ = seen(self._agents.get(name), name, program)
        self._keep(found)
        return found

    def _program(self, found: Attestation, how: str) -> Program | None:
        digest, script = found.attested
        if not digest:
            return None
        now = self._daemon.clock()
        return Program(
            script or digest, found.script or found.path, how, now, now, digest if script else ""
        )

    def _forget(self, params: Params) -> Params:
        """Forget the name, and what was granted to it: whoever is called so later is another."""
        agent = self._named(want(params, name=str)["name"])
        gone = self._daemon.apply(ev.Revoke(agent=agent.name))["revoked"]
        if agent.pending:
            self._daemon.apply(ev.Withhold(agent.name, False))
        self._record("human", agent.name, "forgotten", "")
        self._daemon.memory.forget_agent(agent.name)
        del self._agents[agent.name]
        for one in [a for a in self._adopted.values() if a.agent == agent.name]:
            self._let_go(one)
        return {"revoked": gone}

    def _update(self, params: Params) -> Params:
        p = want(params, name=str, keep=bool)
        agent = self._named(p["name"])
        if agent.changed is None:
            raise Problem(CONFLICT, f"{agent.name}'s program has not changed")
        done = self._daemon.apply(ev.Carry(agent.name, agent.changed, p["keep"]))
        # What was decided on is settled; only a further change asks again.
        self._keep(replace(agent, pending=False, changed=None))
        return done

    # -- adopted processes -------------------------------------------------------------------------

    async def _adopt(self, params: Params) -> Params:
        p = want(params, pid=int, agent=(str, ""))
        pid = p["pid"]
        pidfd, identity = self._hold(pid)
        try:
            supervisors = self._daemon.supervisors()
            if inside_session(pid, supervisors):
                raise Problem(CONFLICT, f"process {pid} is inside a session, which knows better who it is")
            if pid in supervisors or pid == os.getpid():
                raise Problem(CONFLICT, f"process {pid} is remit's own")
            if len(self._adopted) >= MAX_ADOPTED:
                raise Problem(CONFLICT, f"more than {MAX_ADOPTED} adopted processes")
            found = await self._daemon.attest(pid, pidfd, "person")
            name = p["agent"] or self._name_by(found)
            _check_name(name)
            program = self._program(found, ADOPTED)
            if program is not None:
                await self._learn(name, program)
            if not alive(pidfd):
                raise Problem(NOT_FOUND, f"process {pid} is gone")
            note = f"process {pid}, {found.words()}; {UNCONFINED}"
            self._record("human", name, "adopted", note)
        except BaseException:
            os.close(pidfd)
            raise
        old = self._adopted.get(pid)
        if old is not None:
            self._let_go(old)
        one = self._adopted[pid] = Adopted(name, pid, pidfd, identity, self._daemon.clock())
        asyncio.get_running_loop().add_reader(pidfd, self._ended, one)
        return {
            "pid": pid,
            "agent": name,
            "assurance": self._level(name, found),
            "note": UNCONFINED,
            "program": found.words(),
        }

    def _name_by(self, found: Attestation) -> str:
        """Return the one name under which the program is known. Raises Problem: a command line is no name, its process wrote it."""
        program = self._program(found, ADOPTED)
        names = [
            a.name
            for a in self._agents.values()
            if program and a.knows(program.digest, program.interpreter_digest)
        ]
        if len(names) != 1:
            raise Problem(INVALID_PARAMS, "its program is not known under one name: say as which agent")
        return names[0]

    def _hold(self, pid: int) -> tuple[int, str]:
        """Return a pidfd of ``pid``, a process of ours, and its identity. Raises Problem."""
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, OverflowError, ValueError):
            raise Problem(NOT_FOUND, f"no process {pid}") from None
        try:
            with open(f"/proc/{pid}/status", "rb") as f:
                owner = int(f.read().partition(b"\nUid:")[2].split()[0])
            if owner != os.getuid():
                raise Problem(CONFLICT, f"process {pid} belongs to user {owner}")
            return pidfd, identify(pid, pidfd)[1]
        except (OSError, PeerError):
            os.close(pidfd)
            raise Problem(NOT_FOUND, f"no process {pid}") from None
        except BaseException:
            os.close(pidfd)
            raise

    def adopted_above(self, pid: int) -> Adopted | None:
        """Return the adopted process that ``pid`` is or descends from, the nearest."""
        for at in ancestors(pid):
            one = self._adopted.get(at)
            if one is not None and alive(one.pidfd):
                return one
        return None

    async def level(self, one: Adopted) -> str:
        """Return the assurance of an adopted process by what it runs at this moment."""
        return await self.level_of(one.agent, one.pid, one.pidfd, one.identity)

    async def level_of(self, name: str, pid: int, pidfd: int, behalf: str) -> str:
        """Return the assurance of ``pid``, held by ``pidfd``, as the agent ``name``, by what it runs at this moment."""
        return self._level(name, await self._daemon.attest(pid, pidfd, behalf))

    def _level(self, name: str, found: Attestation) -> str:
        agent, program = self._agents.get(name), self._program(found, ADOPTED)
        known = bool(agent and program and agent.knows(program.digest, program.interpreter_digest))
        return assurance(found, launched=False, known=known)

    def _ended(self, one: Adopted) -> None:
        self._let_go(one)
        try:
            self._record("remit", one.agent, "ended", f"adopted process {one.pid}")
        except LedgerError as e:
            log.error("%s", e)

    def _let_go(self, one: Adopted) -> None:
        if self._adopted.get(one.pid) is one:
            del self._adopted[one.pid]
        asyncio.get_running_loop().remove_reader(one.pidfd)
        os.close(one.pidfd)

    def close(self) -> None:
        """Let go of the adopted processes; the next daemon does not know them."""
        for one in list(self._adopted.values()):
            self._let_go(one)


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise Problem(
            INVALID_PARAMS, f"{name!r} is no agent's name: letters, digits and ._@+- , at most 64"
        )


def _day(at: float) -> str:
    local = time.localtime(at)
    return f"{local.tm_mday} {time.strftime('%B', local)}"
