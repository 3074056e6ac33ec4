"""remitd's inside: one object that joins the broker, the store, the ledger, the policy and the connections.

All of it runs on the event loop's one thread and an event is carried out without a pause: decided by the broker, recorded in
the ledger, stored, and only then sent. When recording fails, the event has not happened and what was held is denied.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from remit_daemon.broker import events as ev
from remit_daemon.broker.core import Broker, Refused
from remit_daemon.broker.records import Grant, Session
from remit_daemon.ledger.queries import Filter
from remit_daemon.ledger.store import Ledger, LedgerError, SessionInfo
from remit_daemon.peers import mark, senders
from remit_daemon.peers.attest import Attestation, Attestor
from remit_daemon.peers.process import alive, hold, session_marks
from remit_daemon.runtime import report
from remit_daemon.runtime.asks import Asks
from remit_daemon.runtime.bus import BusService
from remit_daemon.runtime.clients import Clients
from remit_daemon.runtime.contents import Contents
from remit_daemon.runtime.delegation import Delegations
from remit_daemon.runtime.desktop import Desktop
from remit_daemon.runtime.lanes import Lanes
from remit_daemon.runtime.policies import Policies, SnapshotRefused, subject_of
from remit_daemon.runtime.registry import Registry
from remit_daemon.runtime.store import Memory, StoreError
from remit_daemon.runtime.tokens import Tokens
from remit_daemon.runtime.verbs import Verbs
from remit_daemon.wire.control import SUB_END, of_api, of_gateway
from remit_daemon.wire.paths import Paths
from remit_policy.engine import Engine

log = logging.getLogger("remitd")

POLL = 0.5  # seconds between looks at the policy files while somebody is there
INGEST_EVERY = 0.1  # seconds between readings of a journal that grows
INGEST_QUIET = 1.0  # after so long without growth we wait to be poked again
SLICE = 1 << 14  # bytes of a journal in one turn: a hundred records, a few milliseconds
SLICE_ACTIVE = 1 << 12  # the same while a person is active
MAX_CATCH_UP_WITHIN = 0.005  # seconds that an agent's question about the ledger waits for its own journal
MAX_CATCH_UP = 0.5  # seconds that a question about the ledger waits for journals to be read; a flood's rest is for the next
STOP_PATIENCE = 5.0  # a supervisor told to stop has so long before the tree is killed by its mark
IDLE_TICK = 60.0
HASHERS = 2  # threads that hash programs: one large file holds nobody else up, and a processor is left

T = TypeVar("T")
Sender = Callable[[dict[str, Any]], None]
Watcher = Callable[[str, dict[str, Any]], None]


class Daemon:
    """See the module's text. ``clock`` gives seconds since the epoch."""

    def __init__(
        self,
        paths: Paths,
        memory: Memory,
        ledger: Ledger,
        policies: Policies,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.paths = paths
        self.memory = memory
        self.ledger = ledger
        self.policies = policies
        self.clock = clock
        self.started = clock()
        self.broker = Broker(Engine, os.path.expanduser("~"), self.started)
        self.broker.load(*memory.load(), memory.accounts())
        state = self.broker.state
        state.standing = memory.standing()
        state.next_prompt = max(state.next_prompt, memory.counter("prompt") + 1)
        state.next_grant = max(state.next_grant, memory.counter("grant") + 1)
        self.connections: dict[str, Sender] = {}  # to the supervisors
        self.gateways: dict[str, Sender] = {}
        self.gateway_of: dict[int, str] = {}  # the pid of a gateway → its session
        self.watchers: set[Watcher] = set()
        self.tokens = Tokens(self)
        self.attestor = Attestor()
        self._hashing = ThreadPoolExecutor(HASHERS, "attest")
        self.senders = senders.rung()  # how well this kernel tells who wrote a message
        self.asks = Asks(self)
        self.clients = Clients(self)
        self.verbs = Verbs(self)
        self.bus = BusService(self)
        self.registry = Registry(self)
        self.contents = Contents(self)
        self.delegations = Delegations(self)
        self.desktop = Desktop(self, self.bus)
        self._pidfds: dict[str, int] = {}
        self.lanes = Lanes()
        self._busy: dict[str, float] = {}  # session → until when its journal is read again and again
        self._published = ledger.size()
        self._wake = asyncio.Event()
        self._looked = 0.0  # when the policy files were looked at last
        self._tasks: set[asyncio.Task[None]] = set()

    # -- sessions ----------------------------------------------------------------------------------

    def live(self) -> list[Session]:
        """Return the sessions that have not ended."""
        return [s for s in self.broker.state.sessions.values() if s.live]

    def by_tag(self, tag: int) -> Session | None:
        """Return the live session, or sub-session, that carries ``tag``."""
        return next((s for s in self.live() if tag and s.tag == tag), None)

    def by_marks(self, pid: int) -> Session | None:
        """Return the live session or sub-session that process ``pid``, or its nearest marked ancestor, is in.

        What a sub-session left that has ended is in none: not in the one above it.
        """
        tag, own = session_marks(pid)
        found = self.by_tag(own)
        return found if found is not None and bool(found.parent) == (own != tag) else None

    def by_peer(self, pid: int, end: bytes | str = b"") -> Session | None:
        """Return the live session that a peer of agent.sock speaks for.

        A session's connects are made by its supervisor, on the agent's socket, and the kernel names who connected. For a
        sub-session the supervisor gives that socket the name ``end`` first (``wire.control``, SUB_END).
        """
        if isinstance(end, bytes) and end.startswith(SUB_END):
            ident = os.fsdecode(end[len(SUB_END) :]).partition("-")[0]
            sub = self.broker.state.sessions.get(ident)
            return sub if sub is not None and sub.live and sub.parent and sub.pid == pid else None
        made = next((s for s in self.live() if s.confined and s.pid == pid and not s.parent), None)
        return made or self.by_marks(pid)

    def root(self, session: str) -> str:
        """Return the session that the person started, of which ``session`` is or is a part."""
        return self.broker.state.chain(session)[-1]

    def supervisors(self) -> set[int]:
        """Return the pids of running supervisors."""
        return {s.pid for s in self.live() if s.confined}

    def journals(self, session: str) -> list[str]:
        """Return where the session's supervisor, and each gateway that it has had, write their journals."""
        spool = self.paths.spool
        own = f"{session}.journal"
        try:
            names = [
                n for n in os.listdir(spool) if n.startswith(session + ".g") and n.endswith(".journal")
            ]
        except OSError:
            names = []
        return [f"{spool}/{name}" for name in (own, *sorted(names))]

    def adopt(self) -> None:
        """Look after the sessions of an earlier run: those whose supervisor, or client, is gone are ended, the rest awaited.

        What clients outside sessions have tokens by is not taken up: what binds these to them went with the earlier run.
        """
        state = self.broker.state
        clients = {g.client for g in state.grants.values()}
        clients |= {p.consent.client for p in state.prompts.values() if p.consent is not None}
        for client in clients - {""}:
            self.attempt(ev.ClientGone(client))
        for session in sorted(self.live(), key=lambda s: len(state.chain(s.id))):
            if session.parent:
                # Its supervisor is that of the session above, and says later whether it still is.
                if session.parent in state.bases:
                    self._take_up(session)
                continue
            pidfd = hold(session.pid, session.identity)
            if pidfd is None:
                log.info("session %s: process %d is gone", session.id, session.pid)
                self.finish(session.id, None)
                continue
            self._take_up(session)
            self.guard(session.id, pidfd)

    def _take_up(self, session: Session) -> None:
        try:
            self.broker.state.bases[session.id] = self.policies.snapshot(subject_of(session))
        except SnapshotRefused as e:
            log.warning("session %s: %s", session.id, e)

    def guard(self, session: str, pidfd: int) -> None:
        """Watch a supervisor, or client, by ``pidfd`` (taken over): when it ends without a word, so does its session."""
        old = self._pidfds.pop(session, None)
        loop = asyncio.get_running_loop()
        if old is not None:
            loop.remove_reader(old)
            os.close(old)
        self._pidfds[session] = pidfd
        loop.add_reader(pidfd, self._died, session)

    def _died(self, session: str) -> None:
        log.info("session %s: its process ended", session)
        self.finish(session, None)

    def _unguard(self, session: str) -> None:
        pidfd = self._pidfds.pop(session, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def supervisor_alive(self, session: str) -> bool:
        """Tell whether the supervisor of ``session`` is known to run."""
        pidfd = self._pidfds.get(self.root(session))
        return pidfd is not None and alive(pidfd)

    def held(self, session: str) -> int:
        """Return the pidfd by which the process of ``session`` is watched, lent, -1 when it is not."""
        return self._pidfds.get(session, -1)

    def finish(self, session: str, status: int | None, tell: Sender | None = None) -> None:
        """End ``session`` and what it delegated to: the tree is killed by its mark, the journals read to their end, the end recorded.

        ``tell`` is whom to tell, then, what is to be said of it.
        """
        self._unguard(session)
        self.spawn(self._finish(session, status, tell))

    async def _finish(self, ident: str, status: int | None, tell: Sender | None) -> None:
        session = self.broker.state.sessions.get(ident)
        if session is None or not session.live:
            return
        below = self.broker.state.below(ident)
        # The mark of a session that the person started is on all of its tree.
        for one in [ident, *below] if session.parent else [ident]:
            if not await asyncio.to_thread(mark.kill_tree, self.broker.state.sessions[one].tag):
                log.error("session %s: some of its processes do not end", one)
        if not self.broker.state.sessions[ident].live:
            return  # it ended while the tree was killed
        family = [*self.broker.state.below(ident), ident]
        for one in family:
            self.tokens.end_session(self.broker.state.sessions[one])
        for one in family:
            await self._read_on(one)
        if not self.broker.state.sessions[ident].live:
            return
        family = [*self.broker.state.below(ident), ident]
        self.attempt(ev.Ended(ident, status))
        for one in family:
            self._ended(self.broker.state.sessions[one])
        if tell is not None:
            tell({"type": "ended", "message": await report.farewell(self, ident)})

    def _ended(self, session: Session) -> None:
        self.asks.end(session.id)
        self.delegations.forget(session.id)
        for path in self.journals(session.id):
            try:
                self.ledger.forget(SessionInfo(session.id, session.agent), path)
            except (LedgerError, OSError) as e:
                log.error("session %s: its journal stays: %s", session.id, e)

    def spawn(self, coroutine: Any) -> None:
        """Run ``coroutine`` beside us; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if not done.cancelled() and done.exception() is not None:
                log.error("internal error", exc_info=done.exception())

        task.add_done_callback(ended)

    async def attest(self, pid: int, pidfd: int, behalf: str) -> Attestation:
        """Return what ``pid``, held by ``pidfd``, runs now (see ``peers.attest``), hashed beside the loop on behalf of a session or process."""
        return await self.beside(self.attestor.of_process, pid, pidfd, behalf)

    async def hash_file(self, path: str) -> str:
        """Return the SHA-256 of a file that the person named. Raises OSError."""
        return await self.beside(self.attestor.of_file, path, "person")

    async def beside(self, work: Callable[..., T], *args: Any) -> T:
        """Return ``work(*args)``, done in a thread beside the loop: it reads files that may be large or slow."""
        return await asyncio.get_running_loop().run_in_executor(self._hashing, work, *args)

    # -- events ------------------------------------------------------------------------------------

    def apply(self, event: ev.Event) -> dict[str, Any]:
        """Carry ``event`` out and return the broker's reply. Raises Refused, LedgerError or StoreError: nothing happened then."""
        commands = self.broker.handle(event, self.clock())
        entries = [c.entry for c in commands if isinstance(c, ev.Record)]
        changes = [c for c in commands if isinstance(c, (ev.Store, ev.Drop))]
        try:
            if entries:
                sync = any(c.sync for c in commands if isinstance(c, ev.Record))
                self.ledger.append(entries, sync=sync)
            if changes:
                self.memory.keep(changes)
        except (LedgerError, StoreError, ValueError) as e:
            self.broker.undo()
            log.error("%s is not carried out: %s", type(event).__name__.lower(), e)
            if entries and isinstance(e, StoreError):
                self._correct(str(e))
            if isinstance(e, ValueError):
                raise LedgerError(str(e)) from None
            raise
        reply: dict[str, Any] = {}
        for command in commands:
            match command:
                case ev.Send():
                    self._send(command.session, command.frame)
                case ev.Notify():
                    self.notify(command.method, command.params)
                case ev.EndTree():
                    self.spawn(self._end_tree(command.session, command.tag))
                case ev.Reply():
                    reply = command.result
                case ev.Drop(kind="grant", id=ident) | ev.Store(record=Grant(id=ident, suspended=True)):
                    self.tokens.end_grant(ident)
                case _:
                    pass
        if entries:
            self.publish()
        self._wake.set()
        return reply

    def attempt(self, event: ev.Event) -> bool:
        """``apply`` where nobody waits for the result; a failure is logged. Returns whether it happened."""
        try:
            self.apply(event)
        except (Refused, LedgerError, StoreError) as e:
            log.warning("%s: %s", type(event).__name__.lower(), e)
            return False
        return True

    def _correct(self, why: str) -> None:
        entry = {
            "actor": "remit",
            "op": "answer",
            "outcome": "failed",
            "note": f"the row before did not happen: {why}",
        }
        try:
            self.ledger.append([entry], sync=True)
        except LedgerError as e:
            log.error("%s", e)

    def _send(self, session: str, frame: dict[str, Any]) -> None:
        if of_api(frame.get("seq", 0)):
            self.asks.frame(session, frame)
            return
        to_gateway = of_gateway(frame.get("seq", 0))
        if frame["type"] == "snapshot" or not to_gateway:
            self.tell(session, frame)
        if frame["type"] == "snapshot" or to_gateway:
            gateway = self.gateways.get(session)
            if gateway is not None:
                gateway(frame)

    def tell(self, session: str, frame: dict[str, Any]) -> None:
        """Send ``frame`` to the supervisor of ``session``, if it is connected."""
        root = self.root(session)
        sender = self.connections.get(root)
        if sender is not None:
            sender(frame if root == session else {**frame, "sub": session})

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Tell every watcher, and the desktop."""
        self.desktop.heard(method, params)
        for watcher in list(self.watchers):
            watcher(method, params)

    async def _end_tree(self, session: str, tag: int) -> None:
        if not tag:
            self.finish(session, None)  # a client's: its process is not ours to end
            return
        if self.root(session) in self.connections:
            await asyncio.sleep(STOP_PATIENCE)
        found = self.broker.state.sessions.get(session)
        if found is not None and found.live:
            await asyncio.to_thread(mark.kill_tree, tag)

    def wake(self) -> None:
        """Have ``run`` look at the time again."""
        self._wake.set()

    # -- the ledger --------------------------------------------------------------------------------

    def poke(self, session: str) -> None:
        """A journal has grown: read it in turns of the agents' lane, and go on until it is quiet."""
        if session not in self._busy:
            self.spawn(self._reading(session))
        self._busy[session] = time.monotonic() + INGEST_QUIET

    async def _reading(self, session: str) -> None:
        """Read on in a session's journals until nothing has come for a while."""
        try:
            while True:
                if await self._read_on(session):
                    self._busy[session] = time.monotonic() + INGEST_QUIET
                elif time.monotonic() >= self._busy[session]:
                    break
                await asyncio.sleep(INGEST_EVERY)
        finally:
            self._busy.pop(session, None)

    async def _read_on(self, session: str) -> int:
        """Read a session's journals to their ends, in turns; return how many records came."""
        total = 0
        while True:
            async with self.lanes.agents():
                n = self.ingest(session, SLICE if self.lanes.quiet else SLICE_ACTIVE)
            total += n
            if not n:
                return total

    def catch_up(self, session: str = "") -> None:
        """Have the journals of live sessions, or of ``session`` alone, read as far as a person's question about them may wait."""
        end = time.monotonic() + MAX_CATCH_UP
        for known in self.live():
            while session in ("", known.id) and time.monotonic() < end and self.ingest(known.id, SLICE):
                pass

    def catch_up_within(self, session: str) -> None:
        """The same for a question from inside ``session``, in a turn of its lane."""
        if self.lanes.quiet:
            end = time.monotonic() + MAX_CATCH_UP_WITHIN
            while self.ingest(session, SLICE) and time.monotonic() < end:
                pass
        else:
            self.ingest(session, SLICE_ACTIVE)

    def ingest(self, session: str, slice: int = 0) -> int:
        """Read on in a session's journals, with ``slice`` only so many bytes of each; return how many records came."""
        known = self.broker.state.sessions.get(session)
        if known is None:
            return 0
        n = 0
        for path in self.journals(session):
            try:
                n += self.ledger.ingest(SessionInfo(session, known.agent), path, slice=slice)
            except (LedgerError, OSError) as e:
                log.error("session %s: its journal cannot be read: %s", session, e)
        if n:
            self.contents.wake()
            self.publish()
        return n

    def publish(self) -> None:
        """Tell watchers of new rows, and count the uses of grants."""
        uses: dict[str, tuple[int, int, float]] = {}
        end = self.ledger.size()
        while self._published < end:
            entries = self.ledger.query(Filter(after=self._published, limit=1000))
            for entry in entries:
                if entry["rule"].startswith("grant:") and entry["actor"] == "agent":
                    n, denied, at = uses.get(entry["rule"][6:], (0, 0, 0.0))
                    denied += entry["verdict"] == "deny"
                    uses[entry["rule"][6:]] = (n + 1, denied, max(at, entry["time"]))
                self.notify("entry", entry)
            self._published = entries[-1]["seq"] if len(entries) == 1000 else end
        for ident, (n, denied, at) in uses.items():
            self.attempt(ev.Used(ident, n, at, denied))

    # -- the policy --------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the policy files again and give every live session its new snapshot."""
        self.policies.reload()
        self.tokens.end_all()
        problems = self.policies.problems()
        for p in problems:
            log.warning("policy %s:%s:%s: %s", p["file"], p["line"], p["column"], p["message"])
        note = f"{len(problems)} problems; the last good policy stays in force" if problems else ""
        try:
            self.ledger.append(
                [
                    {
                        "actor": "remit",
                        "op": "reload",
                        "outcome": "failed" if problems else "ok",
                        "note": note,
                    }
                ]
            )
        except LedgerError as e:
            log.error("%s", e)
        self.refresh()

    def look_at_policy(self) -> None:
        """Reload when a policy file changed."""
        if self.policies.changed(self._policy_files()):
            self.reload()

    def refresh(self) -> None:
        """Make every live session's snapshot anew and push those that changed."""
        bases = {}
        for session in self.live():
            try:
                bases[session.id] = self.policies.snapshot(subject_of(session))
            except SnapshotRefused as e:
                log.warning("session %s keeps its policy: %s", session.id, e)
        if bases:
            self.attempt(ev.PolicyChanged(bases))

    def _policy_files(self) -> tuple[str, ...]:
        files: set[str] = set()
        for session in self.live():
            subject = subject_of(session)
            files.update(subject.files)
            files.add(f"{subject.project}/.remit.toml")
        return tuple(sorted(files))

    # -- time --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do what time brings: missed prompts, grants that end, journals, changed policy files, checkpoints."""
        while True:
            self._wake.clear()
            try:
                wait = self._step()
            except Exception:  # a fault of ours, or of the system's (no descriptors left), must not end all sessions' daemon
                log.exception("internal error")
                await asyncio.sleep(POLL)
                continue
            try:
                async with asyncio.timeout(wait if math.isfinite(wait) else None):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _step(self) -> float:
        """Do what is due; return the seconds until something may be due again."""
        now = self.clock()
        if self.broker.next_deadline() <= now or now - self._looked > IDLE_TICK:
            self.attempt(ev.Tick())
        watched = bool(self.watchers or self.live())
        if abs(now - self._looked) >= POLL:
            self._looked = now
            if watched:
                self.look_at_policy()
            try:
                self.ledger.tick()
            except LedgerError as e:
                log.error("%s", e)
        until = self.broker.next_deadline() - self.clock()
        return min(IDLE_TICK, POLL if watched else IDLE_TICK, max(0.01, until))

    async def close(self) -> None:
        """Let go of everything; sessions go on under their snapshots."""
        self.lanes.close()
        self.catch_up()
        for session in list(self._pidfds):
            self._unguard(session)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.registry.close()
        self._hashing.shutdown(wait=False, cancel_futures=True)
        try:
            self.ledger.close()
        except LedgerError as e:
            log.error("%s", e)
        self.memory.close()
        self.contents.close()
