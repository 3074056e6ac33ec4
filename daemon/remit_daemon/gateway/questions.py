"""The questions that are open at remitd, and the acts that wait for their answers.

    join -> journal `held`, ask frame -> wait -> answered: by a person, by remitd's policy, or by a new snapshot here
                                              -> expired, gone: who is the last to give up closes the question, and says so

Identical asks (operation, resources) share one question; one about a limit is for a single act and shared by none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remit_daemon.wire.control import FIRST_OF_GATEWAY
from remit_policy.model import ALLOW, ASK, DENY, VERDICTS, Decision

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from remit_daemon.gateway.journal import Journal
    from remit_daemon.gateway.permits import Origin
    from remit_policy.limits import Costs

MAX_HELD = 256  # questions held at once; remitd keeps 100 of a session open, the rest is for its being away
MAX_WAITING = (
    4096  # acts that wait for those questions; more are refused, so a flood cannot make us keep them
)


class TooMany(Exception):
    """No more can be held."""


class Question:
    """A question that is open: ``answer`` resolves to the verdict's name and the person's message."""

    __slots__ = (
        "answer", "answered", "charged", "count", "frame", "key", "op", "path2", "prompt", "resource", "seq", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        seq: int,
        op: str,
        resource: str,
        path2: str,
        frame: dict[str, Any],
        answer: asyncio.Future[tuple[str, str]],
    ) -> None:
        self.seq = seq
        self.op = op
        self.resource = resource
        self.path2 = path2
        self.frame = frame
        self.answer = answer
        self.prompt = ""
        self.answered = False  # by a person
        self.charged = False  # remitd counted it, for one act
        self.key: tuple[str, str, str, int] = (op, resource, path2, 0)
        self.count = 1
        self.waiting = 0


class Questions:
    """The open questions of one session. ``say`` takes the frames for remitd."""

    def __init__(self, journal: Journal, say: Callable[[dict[str, Any]], None]) -> None:
        self._journal = journal
        self._say = say
        self._held: dict[tuple[str, str, str, int], Question] = {}
        self._waiting = 0

    def join(
        self,
        op: str,
        resource: str,
        origin: Origin,
        decision: Decision,
        path2: str,
        note: str,
        insist: bool,
        costs: Costs,
        short: bool,
    ) -> Question:
        """Return the open question about this access, a new one when there is none. Raises TooMany, JournalFailed.

        ``insist``: the rule that allows it does not count, only a grant or a person does. ``short``: it is about a limit.
        """
        if self._waiting >= MAX_WAITING:
            raise TooMany("too many operations are held")
        question = None if short else self._held.get((op, resource, path2, 0))
        if question is not None:
            question.count += 1
            return question
        if len(self._held) >= MAX_HELD:
            raise TooMany("too many questions are open")
        number = self._journal.act(
            op, "ask", "held", origin, resource, path2=path2, rule=decision.source, note=note
        )
        frame = {
            "type": "ask",
            "seq": FIRST_OF_GATEWAY + number,
            "ops": [op],
            "path": resource,
            "path2": path2,
            "pid": origin.pid,
            "proc": origin.proc,
            "exe": origin.exe,
            "comm": origin.comm,
            "argv": list(origin.argv),
            "source": decision.source,
            "count": 1,
            "costs": [f"{kind}:{n}" for kind, n in costs],
            "short": short,
        }
        if insist:
            frame["spent"] = True
        answer: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        question = Question(FIRST_OF_GATEWAY + number, op, resource, path2, frame, answer)
        if short:
            question.key = (op, resource, path2, number)
        self._held[question.key] = question
        self._say(frame)
        return question

    async def wait(self, question: Question, gone: asyncio.Event | None, seconds: float) -> str:
        """Wait for the answer, for ``gone`` or for the time; returns "answered", "gone" or "expired"."""
        question.waiting += 1
        self._waiting += 1
        ended = "gone"
        try:
            ended = await _first_of(question.answer, gone, seconds)
        finally:
            question.waiting -= 1
            self._waiting -= 1
            if not question.waiting and not question.answer.done():
                self._release(question, ended)
                self._say({"type": "cancel", "seq": question.seq, "why": ended})
        return ended

    def _release(self, question: Question, outcome: str) -> None:
        self._held.pop(question.key, None)
        self._journal.done(question.seq - FIRST_OF_GATEWAY, outcome)

    def _settle(self, question: Question, verdict: str, message: str = "") -> None:
        self._release(question, "allowed" if verdict == "allow" else "denied")
        if not question.answer.done():
            question.answer.set_result((verdict, message))

    def frames(self) -> list[dict[str, Any]]:
        """Return the asks that are still held, to be said again to a new remitd."""
        return [{**q.frame, "count": q.count} for q in self._held.values()]

    def answered(self, seq: int, verdict: str, message: str = "", prompt: str = "") -> None:
        """Take remitd's answer to the ask ``seq``, and the prompt it was given to; one no longer held is passed over."""
        for question in list(self._held.values()):
            if question.seq == seq:
                question.prompt = prompt or question.prompt
                question.answered = bool(prompt)
                self._settle(question, "allow" if verdict == "allow" else "deny", message)

    def asked(self, seq: int, prompt: str) -> None:
        """Take the id of the prompt that stands for the ask ``seq``."""
        for question in self._held.values():
            if question.seq == seq:
                question.prompt = prompt

    def adopt(self, decide: Callable[[str, str], int]) -> None:
        """Settle what a new snapshot decides; ``decide`` is its verdict on an operation and a resource."""
        for question in list(self._held.values()):
            verdict = decide(question.op, question.resource)
            costs, short = question.frame["costs"], question.frame["short"]
            if short and verdict == ASK:
                verdict = DENY  # a new ask of the policy is another question
            if verdict == DENY or (verdict == ALLOW and "spent" not in question.frame and not costs):
                self._settle(question, VERDICTS[verdict])
                self._say({"type": "cancel", "seq": question.seq, "why": "gone"})


async def _first_of(
    answer: asyncio.Future[tuple[str, str]], gone: asyncio.Event | None, seconds: float
) -> str:
    """Wait for the answer, for ``gone`` or for the time; returns "answered", "gone" or "expired"."""
    leaving = asyncio.ensure_future(gone.wait()) if gone is not None else None
    try:
        tasks: set[asyncio.Future[Any]] = {answer} | ({leaving} if leaving is not None else set())
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if leaving is not None:
            leaving.cancel()
    if answer.done():
        return "answered"
    return "gone" if gone is not None and gone.is_set() else "expired"
