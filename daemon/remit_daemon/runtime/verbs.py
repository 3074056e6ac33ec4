"""What a program may want of remitd, whichever way it came: the same verbs over agent.sock and on the bus.

    check    what would be said now; nobody is asked and nothing recorded
    request  may I? asked if need be, before the act; an answer for once is kept for the act, which asks as ever
    intend   what I am about to do, and why: the purpose that the next questions show
    open     a file; connect to a host; call a program on the bus: the effect itself, done by remitd and handed over
    whoami, denials

Inside a session these decide by the session's own policy and give nothing that the session could not have by itself. Outside, they are
bookkeeping: whoever asks could do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remit_daemon.broker import events as ev
from remit_daemon.broker.asking import MAX_PURPOSE
from remit_daemon.runtime.calling import Calling
from remit_daemon.runtime.dialling import Dialling
from remit_daemon.runtime.explained import explained
from remit_daemon.runtime.lines import Params, Problem, want
from remit_daemon.runtime.opening import Files
from remit_daemon.wire.rpc import INVALID_PARAMS
from remit_policy import resources
from remit_policy.model import VERDICTS

if TYPE_CHECKING:
    from remit_daemon.runtime.asks import Caller
    from remit_daemon.runtime.daemon import Daemon

MAX_RESOURCE = 16_384  # characters; what is longer cannot be shown whole, so it cannot be asked
MAX_ARGV = 1024  # arguments of a program that is asked about
MAX_COMMAND = 65_536  # characters of them; the same holds
MAX_DENIALS = 1000  # rows of one answer
MAX_RESOURCES = 32  # of one intent


class Verbs:
    """The verbs for any caller. One for the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.files = Files(daemon)
        self.dialling = Dialling(daemon)
        self.calling = Calling(daemon)

    async def check(self, caller: Caller, params: Params) -> Params:
        """Return the decision of now: {verdict, rule, op, resource}."""
        p = want(params, op=str, resource=str, argv=(list, []))
        resource, argv = await self._resource(caller, p["op"], p["resource"]), _argv(p["op"], p["argv"])
        found = self._daemon.broker.decide(caller.session, (p["op"],), resource, argv)
        return {
            "verdict": VERDICTS[found.verdict],
            "rule": found.source,
            "op": p["op"],
            "resource": resource,
        }

    async def request(self, caller: Caller, params: Params) -> Params:
        """Return what policy or the person says: {verdict, rule, prompt, message, op, resource}; verdict ``ask`` when the time was over."""
        p = want(params, op=str, resource=str, argv=(list, []), purpose=(str, ""), wait=(int, None))
        resource, argv = await self._resource(caller, p["op"], p["resource"]), _argv(p["op"], p["argv"])
        told = await self._daemon.asks.settle(
            caller, (p["op"],), resource, argv=argv, purpose=_purpose(p["purpose"]), wait=_wait(p["wait"]), ahead=True,
            note="asked ahead",
        )  # fmt: skip
        return {
            "verdict": told.verdict, "rule": told.rule, "prompt": told.prompt, "message": told.message,
            "op": p["op"], "resource": resource,
        }  # fmt: skip

    async def intend(self, caller: Caller, params: Params) -> Params:
        """Remember why the caller's next acts on ``resources`` (paths and others; none: all) are done."""
        p = want(params, purpose=str, resources=(list, []))
        if len(p["resources"]) > MAX_RESOURCES or not all(type(r) is str for r in p["resources"]):
            raise Problem(INVALID_PARAMS, f"resources is a list of at most {MAX_RESOURCES} texts")
        found = [await self._real(caller, r) if r[:1] == "/" else r for r in p["resources"]]
        self._daemon.apply(ev.Intent(caller.session, tuple(found), _purpose(p["purpose"])))
        return {}

    async def open(self, caller: Caller, params: Params) -> tuple[Params, int]:
        """Return ({path, mode}, descriptor)."""
        p = want(params, path=str, mode=(str, "read"), purpose=(str, ""), wait=(int, None))
        path, fd = await self.files.open(
            caller, p["path"], p["mode"], _purpose(p["purpose"]), _wait(p["wait"])
        )
        return {"path": path, "mode": p["mode"]}, fd

    async def connect(self, caller: Caller, params: Params) -> tuple[Params, int]:
        """Return ({resource, address}, descriptor of the connected socket)."""
        p = want(params, host=str, port=int, purpose=(str, ""), wait=(int, None))
        resource, address, fd = await self.dialling.connect(
            caller, p["host"], p["port"], _purpose(p["purpose"]), _wait(p["wait"])
        )
        return {"resource": resource, "address": address}, fd

    async def call(self, caller: Caller, params: Params) -> Params:
        """Return {signature, args, descriptors, sender} of the reply."""
        p = want(
            params, name=str, path=str, interface=str, member=str, signature=(str, ""), args=(list, []), start=(bool, False),
            purpose=(str, ""), wait=(int, None),
        )  # fmt: skip
        return await self.calling.call(
            caller, p["name"], p["path"], p["interface"], p["member"], p["signature"], p["args"], p["start"],
            _purpose(p["purpose"]), _wait(p["wait"]),
        )  # fmt: skip

    def whoami(self, caller: Caller | None) -> Params:
        """Return {session, agent, project, parent, confined, assurance, state}; an empty session for who has none."""
        if caller is None:
            nobody: Params = dict.fromkeys(("session", "agent", "project", "assurance", "state"), "")
            return nobody | {"parent": None, "confined": False}
        s = self._daemon.broker.state.sessions[caller.session]
        return {
            "session": s.id, "agent": s.agent, "project": s.project, "parent": s.parent or None, "confined": s.confined, "assurance": s.assurance,
            "state": s.state.value,
        }  # fmt: skip

    async def denials(self, caller: Caller, params: Params) -> list[Params]:
        """Return what was refused to the caller's session, the oldest first."""
        p, d = want(params, limit=(int, 100)), self._daemon
        async with d.lanes.agents():
            d.catch_up_within(caller.session)
            found = d.ledger.denials(caller.session, max(0, min(p["limit"], MAX_DENIALS)))
            return explained(found, d.broker.state.prompts.values())

    async def _resource(self, caller: Caller, op: str, resource: str) -> str:
        if len(resource) > MAX_RESOURCE:
            raise Problem(INVALID_PARAMS, f"a resource is at most {MAX_RESOURCE} characters")
        if resource[:1] == "/" and resources.is_path(op, resource):
            return await self._real(caller, resource)
        return resource

    async def _real(self, caller: Caller, path: str) -> str:
        return await self.files.real(caller.session, path)


def _argv(op: str, argv: list[Any]) -> tuple[str, ...]:
    """Return the arguments of the program that is asked about. Of another act there are none: a person would take them for the asker's own."""
    if len(argv) > MAX_ARGV or not all(type(a) is str for a in argv):
        raise Problem(INVALID_PARAMS, f"argv is a list of at most {MAX_ARGV} texts")
    if sum(map(len, argv)) > MAX_COMMAND:
        raise Problem(INVALID_PARAMS, f"argv has at most {MAX_COMMAND} characters")
    if argv and op not in ("exec", "execute"):
        raise Problem(INVALID_PARAMS, "argv is for op exec")
    return tuple(argv)


def _purpose(text: str) -> str:
    text = text.strip()
    if len(text) > MAX_PURPOSE:  # it goes into the ledger, whatever is decided
        raise Problem(INVALID_PARAMS, f"a purpose is at most {MAX_PURPOSE} characters")
    return text


def _wait(seconds: int | None) -> float | None:
    if seconds is not None and seconds < 0:
        raise Problem(INVALID_PARAMS, "wait is a number of seconds")
    return seconds
