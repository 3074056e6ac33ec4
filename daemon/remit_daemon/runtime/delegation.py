"""Sub-sessions: an agent starts another under a name of its own, with no more rights than it has itself.

The sub-session's policy is that of its name, with the policy text that came with the request beside those of the session above, as if
the person had started it so; and whatever that allows, everything above must allow too. Its ask mode, hold time and project are
those of the session above. What confines it is the supervisor that it already has (``supervisor.subs``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any

from remit_daemon.broker import events as ev
from remit_daemon.broker.records import OF, Session
from remit_daemon.peers import mark
from remit_daemon.runtime.lines import Params, Problem, want
from remit_daemon.runtime.policies import SnapshotRefused, subject
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS, MAX_SUB_POLICY, REFUSED
from remit_policy.document import PolicyError
from remit_policy.reading import read_document

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

MAX_DEPTH = 2  # delegations one in the other: a chain that a person can still read
MAX_LIVE = 16  # sub-sessions of one session at once: each has a journal, listening sockets and, when it needs one, a gateway
MAX_EVER = 1000  # of one session altogether: each leaves a record for good
MAX_NAME = 64
MAX_ARGUMENTS = 1000  # of the command line that is recorded
MADE_WITHIN = 40.0  # seconds for the supervisor's part, the start of a gateway included
MAX_PATTERNS = 2000  # of a policy text that an agent writes: compiled on the loop, again at every change
MAX_LIMITS = (
    8  # of such a text: each is an account of its own, looked at with every act and kept until it is empty
)
_POLICY = "the policy given"


class Delegations:
    """Makes sub-sessions and waits for what the supervisors say to them."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._waiting: dict[str, asyncio.Future[dict[str, str]]] = {}

    async def delegate(self, above: Session, params: Params) -> Params:
        """Serve ``delegate`` of agent.sock for a process of ``above``. Raises Problem, Refused, LedgerError, StoreError."""
        daemon = self._daemon
        p = want(params, agent=(str, ""), argv=list, policy=(str, ""))
        argv = tuple(str(a) for a in p["argv"][:MAX_ARGUMENTS])
        if not argv or not all(isinstance(a, str) for a in p["argv"]):
            raise Problem(INVALID_PARAMS, "argv is the command line to be run, a list of text")
        name = p["agent"] or daemon.policies.name_of("", list(argv))
        if not name or len(name) > MAX_NAME or not all(c.isalnum() or c in "._-" for c in name):
            raise Problem(INVALID_PARAMS, "agent: letters, digits, '.', '_' and '-' only")
        async with daemon.lanes.agents():
            root, fresh, net_all = self._begin(above, name, argv, p["policy"])
        return await self._made(root, fresh, net_all)

    def _begin(
        self, above: Session, name: str, argv: tuple[str, ...], policy: str
    ) -> tuple[Session, Session, bool]:
        """Return the session that the person started, the new one in it, and whether its own policy leaves the network unmediated."""
        daemon = self._daemon
        root = self._admit(above)
        sessions = daemon.broker.state.sessions
        while (ident := "s" + os.urandom(3).hex()[:5]) in sessions:
            pass
        while daemon.by_tag(tag := mark.new_sub_mark()) is not None:
            pass
        hello: dict[str, Any] = {
            **above.hello, "agent": name, "argv": list(argv), "exe": "", "sha256": "", "tag": tag,
            "tmpdir": f"{above.hello['tmpdir']}/{ident}", "policy": list(above.hello["policy"]),
        }  # fmt: skip
        try:
            if policy:
                hello["policy"].append(self._keep(ident, policy))
            base = daemon.policies.snapshot(subject(name, hello))
            own = [limit for limit in base.limits if limit.source.startswith(self.kept(ident) + ":")]
            if len(own) > MAX_LIMITS:
                raise Problem(INVALID_PARAMS, f"{_POLICY} has more than {MAX_LIMITS} limits")
            fresh = Session(
                ident, name + OF + above.agent, root.pid, root.identity, tag, above.project, argv,
                daemon.clock(), ask=above.ask, net_all=base.net_all and above.net_all, hello=hello, parent=above.id,
            )  # fmt: skip
            daemon.apply(ev.Started(fresh, base))
        except SnapshotRefused as e:
            self.forget(ident)
            raise Problem(INVALID_PARAMS, str(e).replace(self.kept(ident), _POLICY)) from None
        except BaseException:
            self.forget(ident)
            raise
        return root, fresh, base.net_all

    def _admit(self, above: Session) -> Session:
        """Return the session that the person started, if one more sub-session of ``above`` may be. Raises Problem."""
        state = self._daemon.broker.state
        chain = state.chain(above.id)
        root = state.sessions[chain[-1]]
        if not state.sessions[above.id].live:
            raise Problem(CONFLICT, f"session {above.id} has ended")
        if len(chain) > MAX_DEPTH:
            raise Problem(REFUSED, f"{above.agent} may not delegate: at most {MAX_DEPTH} deep")
        if len(state.below(root.id)) >= MAX_LIVE:
            raise Problem(REFUSED, f"session {root.id} has {MAX_LIVE} sub-sessions already")
        if sum(1 for s in state.sessions.values() if s.parent and s.pid == root.pid) >= MAX_EVER:
            raise Problem(REFUSED, f"session {root.id} has had {MAX_EVER} sub-sessions")
        if root.id not in self._daemon.connections:
            raise Problem(CONFLICT, "the session's supervisor is not connected; try again")
        return root

    async def _made(self, root: Session, fresh: Session, net_all: bool) -> Params:
        daemon, ident, ticket = self._daemon, fresh.id, secrets.token_hex(16)
        text, revision = daemon.broker.snapshot(ident)
        waiting = self._waiting[ident] = asyncio.get_running_loop().create_future()
        try:
            daemon.connections[root.id](
                {
                    "type": "delegate", "sub": ident, "parent": fresh.parent, "agent": fresh.agent, "mark": fresh.tag,
                    "tmpdir": fresh.hello["tmpdir"], "ticket": ticket, "snapshot": text, "net_all": net_all,
                    "revision": revision,
                }
            )  # fmt: skip
            async with asyncio.timeout(MADE_WITHIN):
                env = await waiting
            if not daemon.broker.state.sessions[ident].live:
                raise Problem(CONFLICT, "the session that delegates has ended")
        except TimeoutError:
            daemon.tell(ident, {"type": "stop"})
            daemon.finish(ident, None)
            raise Problem(CONFLICT, "the session's supervisor does not make a sub-session") from None
        except Problem:
            daemon.finish(ident, None)
            raise
        finally:
            del self._waiting[ident]
        now, revision = daemon.broker.snapshot(ident)
        if now != text:  # pushed while there was nobody yet to take it
            daemon.tell(ident, {"type": "snapshot", "snapshot": now, "revision": revision})
        return {"session": ident, "agent": fresh.agent, "ticket": ticket, "env": env}

    def made(self, sub: str, error: str, env: list[str]) -> None:
        """Take a supervisor's word on what it was told to make; one that nobody waits for is passed over."""
        waiting = self._waiting.get(sub)
        if waiting is None or waiting.done():
            return
        if error:
            waiting.set_exception(Problem(REFUSED, f"no sub-session: {error}"))
        else:
            waiting.set_result(dict(cell.split("=", 1) for cell in env if "=" in cell))

    # -- the policy text that came along -----------------------------------------------------------

    def kept(self, ident: str) -> str:
        """Return the file that keeps the policy text of sub-session ``ident`` while it lives."""
        return f"{self._daemon.paths.spool}/{ident}.toml"

    def _keep(self, ident: str, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass")
        if len(raw) > MAX_SUB_POLICY:
            raise Problem(INVALID_PARAMS, f"{_POLICY} is longer than {MAX_SUB_POLICY} bytes")
        try:
            read_document(_POLICY, raw, most=MAX_PATTERNS)
        except PolicyError as e:
            first = e.problems[0]
            raise Problem(INVALID_PARAMS, f"{_POLICY}:{first.line}: {first.message}") from None
        path = self.kept(ident)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as f:
            f.write(raw)
        return path

    def forget(self, ident: str) -> None:
        """Remove the policy text of a sub-session that is over."""
        with contextlib.suppress(OSError):
            os.unlink(self.kept(ident))
