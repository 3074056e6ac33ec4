"""Who acts: the human, or which agent on his behalf, told of a process by the kernel's word on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from remit_daemon.peers.process import ancestors
from remit_daemon.wire.words import UNCONFINED

if TYPE_CHECKING:
    from remit_daemon.broker.records import Session
    from remit_daemon.runtime.daemon import Daemon


def session_of(daemon: Daemon, pid: int) -> Session | None:
    """Return the live session for which process ``pid`` acts, None when it is the human's.

    Besides the agent's tree these are its supervisor, which makes the agent's connections, and its gateway: whoever is connected to by
    one of these is connected to by the agent.
    """
    session = daemon.by_marks(pid)
    if session is None:
        chain = ancestors(pid)
        for at in chain:
            if at in daemon.gateway_of:
                return daemon.broker.state.sessions.get(daemon.gateway_of[at])
        # The nearest: what a program started speaks for itself.
        of = {s.pid: s for s in daemon.live() if not s.parent}
        session = next((of[at] for at in chain if at in of), None)
    return session


def may_speak(daemon: Daemon, pid: int, session: Session) -> bool:
    """Tell whether process ``pid``, which ``session_of`` takes for one of ``session``, cannot be that of a sub-session of it.

    A gateway that remitd does not know yet, or no more, is by its parent the supervisor's alone, which serves them all.
    """
    if not daemon.broker.state.below(session.id) or daemon.by_marks(pid) is not None:
        return True
    return any(at in daemon.gateway_of for at in ancestors(pid))


def as_actor(session: Session) -> dict[str, str]:
    """Return the actor that ``session`` is."""
    return {
        "actor": "agent", "agent": session.agent, "session": session.id, "assurance": session.assurance,
        "note": "" if session.confined else UNCONFINED,
    }  # fmt: skip


async def describe(daemon: Daemon, pid: int) -> dict[str, str]:
    """Return who acts in process ``pid``: actor, agent, session, assurance and note, texts. Raises ProcessLookupError when it is gone.

    An adopted process, and what it started, counts as its agent; the note says that nothing holds it to that.
    """
    if pid <= 0 or not os.path.exists(f"/proc/{pid}"):
        raise ProcessLookupError(f"no process {pid}")
    found = {"actor": "human", "agent": "", "session": "", "assurance": "", "note": ""}
    session = session_of(daemon, pid)
    if session is not None:
        return as_actor(session)
    one = daemon.registry.adopted_above(pid)
    if one is None:
        return found
    level = await daemon.registry.level(one)
    return found | {"actor": "agent", "agent": one.agent, "assurance": level, "note": UNCONFINED}
