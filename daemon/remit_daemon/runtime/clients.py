"""Sessions of programs that remit did not start: they come to us, say who they are, and ask.

Such a program is the person, as far as Linux can tell. What it is told is honest bookkeeping, and what is recorded is what it
said that it would do: nothing holds it. Its session has an assurance below L3, no mark and no supervisor. There is one for one
process, told by its pidfd, and it ends with that process. It outlives remitd, as others do.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from remit_daemon.broker import events as ev
from remit_daemon.broker.core import Refused
from remit_daemon.broker.records import Session
from remit_daemon.peers.process import PeerError, ancestors, identify
from remit_daemon.runtime.policies import SnapshotRefused, subject
from remit_daemon.runtime.who import Who
from remit_daemon.wire.rpc import BUSY, CONFLICT, INVALID_PARAMS, REFUSED

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

log = logging.getLogger("remitd.clients")

MAX_CLIENTS = 128  # such sessions at once; each keeps a policy of its own compiled
NEW_EVERY = 0.1  # seconds between new ones on the average: each compiles a policy (some 20 ms)
NEW_BURST = 32  # that may come at once
MAX_NAME = 64  # characters of an agent's name
_MAX_CMDLINE = 1 << 16


class Clients:
    """Finds and makes the sessions of unconfined programs."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._spent_until = 0.0  # when the room for new ones is whole again, monotonic

    def of(self, identity: str) -> Session | None:
        """Return the live session of the process ``identity``."""
        return next((s for s in self._daemon.live() if not s.confined and s.identity == identity), None)

    async def session(
        self,
        pid: int,
        identity: str,
        pidfd: int,
        *,
        agent: str = "",
        project: str = "",
        assurance: str = "",
    ) -> Session:
        """Return the session of a process outside every session, a new one when it has none.

        ``agent`` is the name that it gives itself ("": the one that it was adopted under, else its program's); ``assurance`` how
        well it is known who it is, "" to have its program looked at. The pidfd stays the caller's. Raises Refused.
        """
        found = self.of(identity)
        if found is None and not assurance:
            adopted = self._daemon.registry.adopted_above(pid)
            agent = agent or (adopted.agent if adopted else "")
            named = agent or self._daemon.policies.name_of(*described(pid)[:2])
            assurance = await self._daemon.registry.level_of(named, pid, pidfd, identity)
            found = self.of(identity)  # two of its messages may have come at once
        if found is not None:
            if agent and found.agent != agent:
                raise Refused(CONFLICT, f"process {pid} is {found.agent} already")
            return found
        return self._new(pid, identity, pidfd, agent, project, assurance)

    def _ended(self, identity: str) -> bool:
        """Tell whether the person has ended the session of a process that lives on."""
        return any(
            s.identity == identity and not s.confined for s in self._daemon.broker.state.sessions.values()
        )

    def _new(
        self, pid: int, identity: str, pidfd: int, agent: str, project: str, assurance: str
    ) -> Session:
        d = self._daemon
        if self._ended(identity):
            raise Refused(
                REFUSED, "the session of this program was ended; it has no other until it starts again"
            )
        self._make_room()
        exe, argv, cwd = described(pid)
        agent = agent or d.policies.name_of(exe, argv)
        if not agent or len(agent) > MAX_NAME or not agent.isprintable() or agent != agent.strip():
            raise Refused(INVALID_PARAMS, f"an agent's name is 1 to {MAX_NAME} printable characters")
        if project and not project.startswith("/"):
            raise Refused(INVALID_PARAMS, "project must be absolute")
        hello: dict[str, Any] = {
            "agent": agent, "argv": argv, "exe": exe, "sha256": "", "cwd": cwd, "project": project or cwd,
            "home": os.path.expanduser("~"), "policy": [], "hold": 0, "launch": [], "tmpdir": "",
        }  # fmt: skip
        d.look_at_policy()
        try:
            base = d.policies.snapshot(subject(agent, hello))
        except SnapshotRefused as e:
            raise Refused(CONFLICT, str(e)) from None
        ident = "s" + os.urandom(3).hex()[:5]
        while ident in d.broker.state.sessions:
            ident = "s" + os.urandom(3).hex()[:5]
        session = Session(
            ident, agent, pid, identity, 0, hello["project"], tuple(argv), d.clock(), assurance=assurance, hello=hello
        )  # fmt: skip
        # Looked at by its number until here: it must still be the process that we hold.
        try:
            if identify(pid, pidfd)[1] != identity:
                raise PeerError(f"process {pid} is gone")
        except PeerError as e:
            raise Refused(REFUSED, str(e)) from None
        d.apply(ev.Started(session, base))
        d.guard(ident, os.dup(pidfd))
        log.info("session %s: %s, process %d, unconfined", ident, agent, pid)
        return session

    def who(self, ident: str) -> Who:
        """Return what the methods on tokens are told of the client session ``ident``: its process. Raises Refused when that is over."""
        session, pidfd = self._daemon.broker.state.sessions[ident], self._daemon.held(ident)
        if pidfd < 0:
            raise Refused(CONFLICT, f"session {ident} has ended")
        exe, argv, _ = described(session.pid)
        return Who(session.identity, session.pid, exe, os.path.basename(argv[0]) if argv else "", pidfd)

    def _make_room(self) -> None:
        if sum(1 for s in self._daemon.live() if not s.confined) >= MAX_CLIENTS:
            raise Refused(BUSY, f"{MAX_CLIENTS} programs outside sessions are known already")
        now = time.monotonic()
        start = max(self._spent_until, now)
        if start - now > NEW_EVERY * NEW_BURST:
            raise Refused(BUSY, "too many new programs at once; try again in a moment")
        self._spent_until = start + NEW_EVERY

    def ancestor(self, peer: int, pid: int) -> tuple[int, str]:
        """Return (pidfd, identity) of ``pid`` when it is an ancestor of ``peer``: a helper speaks for the agent that started it.

        The caller closes the pidfd. Raises Refused.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, OverflowError):
            raise Refused(REFUSED, f"no process {pid}") from None
        try:
            if os.stat(f"/proc/{pid}").st_uid != os.getuid() or pid not in ancestors(peer):
                raise PeerError(f"process {pid} did not start process {peer}")
            return pidfd, identify(pid, pidfd)[1]
        except (PeerError, OSError) as e:
            os.close(pidfd)
            raise Refused(REFUSED, str(e) if isinstance(e, PeerError) else f"no process {pid}") from None


def described(pid: int) -> tuple[str, list[str], str]:
    """Return (executable, arguments, working directory) of ``pid`` as proc(5) shows them, "" and nothing where it does not."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            argv = [os.fsdecode(word) for word in f.read(_MAX_CMDLINE).split(b"\0")[:-1]]
    except OSError:
        argv = []
    return _link(pid, "exe"), argv, _link(pid, "cwd") or "/"


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""
