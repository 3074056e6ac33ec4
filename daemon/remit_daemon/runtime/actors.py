"""Who acts: the human, or which agent on his behalf, told of a process by the kernel's word on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remit_daemon.peers.process import ancestors

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
        session = next((s for s in daemon.live() if s.pid in chain), None)
    return session
