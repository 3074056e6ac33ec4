"""What a person asks of remitd beside the prompts: the grants and their review, and being left in peace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remit_daemon.broker import events as ev
from remit_daemon.runtime import effective, learning, reach, report, review
from remit_daemon.runtime.lines import Method, Params, want

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon


def methods(daemon: Daemon) -> dict[str, Method]:
    """Return the methods of approver.sock that this module serves, as ``wire.rpc`` lays them down."""

    async def grants(params: Params) -> Any:
        want(params)
        return await review.grants(daemon)

    def narrow(params: Params) -> Params:
        p = want(params, id=str, scope=str)
        return daemon.apply(ev.Narrow(p["id"], p["scope"]))

    def extend(params: Params) -> Params:
        p = want(params, id=str, seconds=int)
        return daemon.apply(ev.Extend(p["id"], p["seconds"]))

    def keep(params: Params) -> Params:
        return daemon.apply(ev.Keep(want(params, id=str)["id"]))

    def reviewed(params: Params) -> Params:
        p = want(params, kept=int, narrowed=int, revoked=int, skipped=int)
        return daemon.apply(ev.Reviewed(", ".join(f"{n} {what}" for what, n in p.items())))

    def quiet(params: Params) -> Params:
        p = want(params, mode=str, seconds=(int, 0))
        return daemon.apply(ev.Quiet(p["mode"], p["seconds"]))

    async def reached(params: Params) -> Any:
        p = want(params, id=str, scope=(str, ""))
        return await reach.reach(daemon, p["id"], p["scope"])

    async def reported(params: Params) -> Any:
        return await report.of(daemon, want(params, session=str)["session"])

    async def learn(params: Params) -> Any:
        return await learning.proposals(daemon, want(params, session=str)["session"])

    async def in_force(params: Params) -> Any:
        p = want(params, agent=str, project=(str, ""))
        return await effective.of(daemon, p["agent"], p["project"])

    return {
        "policy.effective": in_force,
        "learn": learn,
        "report": reported,
        "reach": reached,
        "grants": grants,
        "grant.narrow": narrow,
        "grant.extend": extend,
        "grant.keep": keep,
        "review.done": reviewed,
        "quiet": quiet,
    }
