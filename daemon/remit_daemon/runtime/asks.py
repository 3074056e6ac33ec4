"""Questions of remitd itself, on behalf of programs that came to it: the broker's asks, answered here.

remitd is the enforcement point of its own verbs. Each goes the way of every other act: decided by the session's policy
in force, recorded before its effect, asked when that is the decision, and decided again after the answer.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remit_daemon.broker import events as ev
from remit_daemon.broker import limits
from remit_daemon.broker.core import Refused
from remit_daemon.broker.states import SessionState
from remit_daemon.ledger.store import LedgerError
from remit_daemon.runtime.store import StoreError
from remit_daemon.wire.control import FIRST_AHEAD, FIRST_OF_API
from remit_daemon.wire.rpc import BUSY, CONFLICT
from remit_policy.model import ALLOW, ASK, DENY, VERDICTS

if TYPE_CHECKING:
    from remit_daemon.broker.records import Session
    from remit_daemon.runtime.daemon import Daemon

_CALL = ("calls:1",)
_EXEC = {
    "exec",
    "execute",
}  # whose question shows the arguments of what would be run, never the asker's own
_QUIET = {"read", "list"}  # not counted, as in ``supervisor.session``
MAX_WAITING = 512  # asks of all programs that wait at once
MAX_WAITING_EACH = 16  # of one session: a program has a few calls under way, not hundreds
MAX_CLIENT_PROMPTS = 64  # open questions of all unconfined programs: a person's list stays readable
MAX_WAIT = 600.0  # seconds that a caller may wait for an answer: as long as a question lives


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a verb: its session, and the process that said so."""

    session: str
    pid: int = 0
    proc: str = ""
    exe: str = ""
    comm: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it. ``verdict`` is allow, deny, or ask when the time was over first; ``row`` the ledger's, 0 when none is open."""

    verdict: str
    rule: str
    prompt: str = ""
    message: str = ""
    row: int = 0


class _Waiting:
    __slots__ = ("answer", "prompt")

    def __init__(self, answer: asyncio.Future[tuple[str, str]]) -> None:
        self.answer = answer
        self.prompt = ""


class Asks:
    """See the module's text."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._waiting: dict[tuple[str, int], _Waiting] = {}
        self._open: dict[int, dict[str, str]] = {}  # rows that wait for their end, and whose they are
        self._acts = itertools.count(FIRST_OF_API)
        self._ahead = itertools.count(FIRST_AHEAD)

    def frame(self, session: str, frame: dict[str, Any]) -> None:
        """Take what the broker sends to one of our asks."""
        waiting = self._waiting.get((session, frame["seq"]))
        if waiting is None or waiting.answer.done():
            return
        waiting.prompt = frame["prompt"] or waiting.prompt
        if frame["type"] == "answer":
            waiting.answer.set_result((frame["verdict"], frame["message"]))

    def end(self, session: str) -> None:
        """Deny what a session that is over still waits for."""
        for (whose, _), waiting in self._waiting.items():
            if whose == session and not waiting.answer.done():
                waiting.answer.set_result(("deny", "the session has ended"))

    async def settle(
        self, caller: Caller, ops: tuple[str, ...], path: str, *, argv: tuple[str, ...] = (), purpose: str = "",
        wait: float | None = None, ahead: bool = False, note: str = "", given: str = "",
    ) -> Told:  # fmt: skip
        """Return the word on an act of ``caller``, asked for up to ``wait`` seconds (None: the policy's hold).

        ``ahead``: the act itself comes later and is not done here, so its row is complete. Else a row is open when
        the verdict is allow, to be closed by ``done``. ``given`` is the path as it was written: a deny of it is one. Raises
        Refused when it cannot be asked, LedgerError or StoreError when it cannot be recorded.
        """
        d = self._daemon
        async with d.lanes.agents():
            session = self._running(caller.session)
            decision = d.broker.decide(session.id, ops, path, argv)
            if given and given != path:
                decision = max(decision, d.broker.decide(session.id, ops, given, argv), key=_denies)
            word = VERDICTS[decision.verdict]
            outcome = {ALLOW: "told" if ahead else "pending", ASK: "held", DENY: "refused"}[
                decision.verdict
            ]
            note = "; ".join(t for t in (note, f"purpose: {purpose}" if purpose else "") if t)
            row = self._record(caller, session, ops, path, word, outcome, decision.source, note, argv)
        costs = () if ahead else self._costs(session, ops)
        if decision.verdict == DENY or (decision.verdict == ALLOW and not costs):
            return Told(word, decision.source, row=0 if ahead or decision.verdict == DENY else row)
        short = decision.verdict == ALLOW
        try:
            told = await self._ask(
                caller, session, ops, path, argv, purpose, wait, ahead, decision.source, costs, short
            )
        except (Refused, LedgerError, StoreError):
            self.done(row, "denied")
            raise
        except asyncio.CancelledError:
            self.done(row, "gone")
            raise
        if told.verdict != "allow":
            self.done(row, "denied" if told.verdict == "deny" else "expired")
            return told
        now = d.broker.decide(session.id, ops, path, argv)  # the policy may be another by now
        if now.verdict == DENY:
            self.done(row, "denied")
            return Told("deny", now.source, told.prompt, "the policy denies it")
        if ahead:
            self.done(row, "allowed")
            return told
        return Told("allow", now.source, told.prompt, told.message, row)

    async def _ask(
        self, caller: Caller, session: Session, ops: tuple[str, ...], path: str, argv: tuple[str, ...], purpose: str,
        wait: float | None, ahead: bool, source: str, costs: tuple[str, ...], short: bool,
    ) -> Told:  # fmt: skip
        self._room(session)
        seq = next(self._ahead if ahead else self._acts)
        key = session.id, seq
        waiting = self._waiting[key] = _Waiting(asyncio.get_running_loop().create_future())
        if wait is None:
            wait = self._daemon.broker.state.bases[session.id].hold
        why = "gone"
        try:
            async with self._daemon.lanes.agents():
                self._daemon.apply(
                    ev.Ask(
                        session.id, seq, ops, path, pid=caller.pid, proc=caller.proc, exe=caller.exe, comm=caller.comm,
                        argv=argv, source=source, purpose=purpose, costs=costs, short=short,
                    )
                )  # fmt: skip
            done, _ = await asyncio.wait((waiting.answer,), timeout=min(wait, MAX_WAIT))
            if done:
                verdict, message = waiting.answer.result()
                return Told(verdict, source, waiting.prompt, message)
            why = "expired"
            message = (
                f"nobody answered within {wait:g} s; the question stays open: try again once it is answered"
            )
            return Told("ask", source, waiting.prompt, message)
        finally:
            del self._waiting[key]
            if not waiting.answer.done():
                self._daemon.attempt(ev.Cancel(session.id, seq, why))

    def _costs(self, session: Session, ops: tuple[str, ...]) -> tuple[str, ...]:
        """Return what an act of remitd's own for ``session`` counts against its limits, as a supervisor would count it."""
        if set(ops) <= _QUIET:
            return ()
        under = limits.limits_of(self._daemon.broker.state, session.id)
        return _CALL if any(limit.kind == "calls" for limit in under) else ()

    def _room(self, session: Session) -> None:
        mine = sum(1 for whose, _ in self._waiting if whose == session.id)
        if mine >= MAX_WAITING_EACH or len(self._waiting) >= MAX_WAITING:
            raise Refused(BUSY, "too many questions of this program wait; take one answer first")
        if not session.confined:
            sessions = self._daemon.broker.state.sessions
            clients = [p for p in self._daemon.broker.prompts() if not sessions[p["session"]].confined]
            if len(clients) >= MAX_CLIENT_PROMPTS:
                raise Refused(
                    BUSY, f"{MAX_CLIENT_PROMPTS} questions of programs outside sessions are open already"
                )

    def _running(self, ident: str) -> Session:
        session = self._daemon.broker.state.sessions.get(ident)
        if session is None or session.state is not SessionState.RUNNING:
            raise Refused(CONFLICT, f"session {ident} is {session.state.value if session else 'gone'}")
        return session

    def refuse(self, caller: Caller, ops: tuple[str, ...], path: str, why: str) -> None:
        """Record that remitd did not even ask about an act of ``caller``. Raises LedgerError."""
        session = self._running(caller.session)
        self._record(
            caller, session, ops, path, "deny", "refused", "built-in: the verbs of remitd", why, ()
        )

    def unasked(self, caller: Caller, ops: tuple[str, ...], path: str, why: str) -> Told:
        """Record the beginning of an act that a built-in rule allows; to be closed by ``done``. Raises Refused, LedgerError."""
        session = self._running(caller.session)
        rule = "built-in: the verbs of remitd"
        row = self._record(caller, session, ops, path, "allow", "pending", rule, why, ())
        return Told("allow", rule, row=row)

    def _record(
        self, caller: Caller, session: Session, ops: tuple[str, ...], path: str, verdict: str, outcome: str,
        rule: str, note: str, argv: tuple[str, ...],
    ) -> int:  # fmt: skip
        entry = {
            "actor": "agent", "agent": session.agent, "session": session.id, "pid": caller.pid, "proc": caller.proc,
            "exe": caller.exe, "op": ops[-1], "path": path, "verdict": verdict, "outcome": outcome, "rule": rule,
            "note": note, "argv": list(argv),
        }  # fmt: skip
        try:
            (row,) = self._daemon.ledger.append([entry])
        except ValueError as e:
            raise LedgerError(str(e)) from None
        if outcome in ("pending", "held"):
            self._open[row] = {"actor": "agent", "agent": session.agent, "session": session.id}
        self._daemon.publish()
        return row

    def done(self, row: int, outcome: str = "ok", object: str = "") -> None:
        """Complete the act of ``row`` (0: none is open) with ``ok``, an errno's name, or how its hold ended.

        ``object`` is the file that may be written from now on (``kernel.objects``): the session is its author, as of what it opens by itself.
        """
        whose = self._open.pop(row, None)
        if whose is not None:
            try:
                self._daemon.ledger.append([{**whose, "op": "done", "outcome": outcome, "act": row}])
                if object:
                    self._daemon.ledger.wrote(row, object)
                    self._daemon.contents.wake()
            except LedgerError:
                pass  # the ledger says so itself, and the act stands there as begun


def _denies(decision: Any) -> int:
    return int(decision.verdict == DENY)
