"""The programs' socket: the methods of ``wire.rpc`` behind agent.sock.

Whoever writes is told by the kernel, message by message. A program inside a session speaks for that session, whatever it says of
itself, and on a connection of that session's alone. One outside every session gets a session of its own when it first needs one
(``runtime.clients``); several such may share a connection, each message being its writer's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from remit_daemon.peers.process import Peer, PeerError, inside_session
from remit_daemon.runtime import who as callers
from remit_daemon.runtime.approver import agent_methods
from remit_daemon.runtime.asks import Caller
from remit_daemon.runtime.clients import described
from remit_daemon.runtime.lines import ByCaller, Lines, Method, Params, WithFds, refuse, want
from remit_daemon.wire.rpc import MAX_LINE_OF_AGENTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remit_daemon.broker.records import Session
    from remit_daemon.runtime.channel import Channel
    from remit_daemon.runtime.daemon import Daemon

_READ = ("token.introspect", "token.scopes")


class Agent:
    """One accepted connection on agent.sock."""

    def __init__(self, daemon: Daemon, peer: Peer, channel: Channel) -> None:
        self._daemon = daemon
        self._peer = peer
        self._channel = channel
        self._session: Session | None = None  # of a connection from inside
        self._for: dict[str, str] = {}  # identity of a writer outside → the session that it speaks for

    async def serve(self) -> None:
        """Serve the connection until it ends."""
        d = self._daemon
        self._session = d.by_peer(self._peer.pid, self._channel.end)
        if self._session is not None:
            methods: dict[str, Method] = {
                **agent_methods(d, self._session.id), **self._verbs(self._inside)
            }  # fmt: skip
            await Lines(
                self._channel, methods, self._admit_inside, d.lanes.agents, MAX_LINE_OF_AGENTS
            ).serve()
        elif inside_session(self._peer.pid, d.supervisors()):
            refuse(
                self._channel, "this program is inside a session that remitd does not know; it may be over"
            )
        else:
            methods = {
                "hello": ByCaller(self._hello),
                **self._tokens(),
                **self._verbs(self._outside),
            }
            await Lines(
                self._channel, methods, self._admit_outside, d.lanes.agents, MAX_LINE_OF_AGENTS
            ).serve()

    def _admit_inside(self, writer: Peer) -> None:
        """Raise PeerError unless ``writer`` is a process of the session itself: not of a sub-session, nor of the one above, and not of one that ended.

        The supervisor, which made the connection, writes on it only where it performs an agent's sendmsg; whose is then not known.
        """
        session = self._session
        assert session is not None
        if writer.pid == session.pid:
            raise PeerError(
                "write with send or write here: sendmsg is performed by remit, which cannot say for whom"
            )
        found = self._daemon.by_marks(writer.pid)
        if found is None or found.id != session.id or not writer.alive():
            raise PeerError(f"process {writer.pid} is not inside session {session.id}")

    def _admit_outside(self, writer: Peer) -> None:
        if inside_session(writer.pid, self._daemon.supervisors()) or not writer.alive():
            raise PeerError(
                f"process {writer.pid} is inside a session, or gone, and this connection comes from outside"
            )

    # -- who calls ---------------------------------------------------------------------------------

    async def _inside(self, writer: Peer) -> Caller:
        assert self._session is not None
        return _caller(self._session.id, writer)

    async def _outside(self, writer: Peer) -> Caller:
        known = self._for.get(writer.identity)
        if known is None:
            known = (await self._daemon.clients.session(writer.pid, writer.identity, writer.pidfd)).id
        return _caller(known, writer)

    async def _hello(self, params: Params, writer: Peer) -> Params:
        p = want(params, agent=(str, ""), project=(str, ""), pid=(int, 0))
        clients = self._daemon.clients
        if p["pid"] in (0, writer.pid):
            found = await clients.session(
                writer.pid, writer.identity, writer.pidfd, agent=p["agent"], project=p["project"]
            )
        else:
            pidfd, identity = clients.ancestor(writer.pid, p["pid"])
            try:
                found = await clients.session(
                    p["pid"], identity, pidfd, agent=p["agent"], project=p["project"]
                )
            finally:
                os.close(pidfd)
        self._for = {**dict(list(self._for.items())[-15:]), writer.identity: found.id}
        return self._daemon.verbs.whoami(_caller(found.id, writer))

    # -- methods -----------------------------------------------------------------------------------

    def _verbs(self, caller: Callable[[Peer], Awaitable[Caller]]) -> dict[str, Method]:
        v = self._daemon.verbs

        def told(verb: Callable[[Caller, Params], Awaitable[Params]]) -> ByCaller:
            async def call(params: Params, writer: Peer) -> Params:
                return await verb(await caller(writer), params)

            return ByCaller(call)

        def handed(verb: Callable[[Caller, Params], Awaitable[tuple[Params, int]]]) -> ByCaller:
            async def call(params: Params, writer: Peer) -> WithFds:
                result, fd = await verb(await caller(writer), params)
                return WithFds(result, [fd])

            return ByCaller(call)

        async def whoami(params: Params, writer: Peer) -> Params:
            want(params)
            return v.whoami(await self._known(writer))

        async def denials(params: Params, writer: Peer) -> list[Params]:
            return await v.denials(await caller(writer), params)

        return {
            "whoami": ByCaller(whoami),
            "denials": ByCaller(denials),
            "check": told(v.check),
            "request": told(v.request),
            "intend": told(v.intend),
            "open": handed(v.open),
            "connect": handed(v.connect),
            "call": told(v.call),
        }

    async def _known(self, writer: Peer) -> Caller | None:
        """Return the caller that ``writer`` is, None when it is outside and has no session yet."""
        if (
            self._session is None
            and writer.identity not in self._for
            and self._daemon.clients.of(writer.identity) is None
        ):
            return None
        return await (self._inside(writer) if self._session is not None else self._outside(writer))

    def _tokens(self) -> dict[str, Method]:
        """Return the methods on tokens of a program outside: what it is given is bound to the process that writes.

        It may look at any token, since that is for whom one is presented to.
        """
        tokens, peer = self._daemon.tokens, callers.of_peer(self._peer)
        person = tokens.of_person(peer)

        def told(name: str) -> ByCaller:
            return ByCaller(
                lambda params, writer: tokens.of_client(callers.of_peer(writer))[name](params)  # type: ignore[operator]
            )

        return {name: told(name) for name in tokens.of_client(peer)} | {
            name: person[name] for name in _READ
        }


def _caller(session: str, writer: Peer) -> Caller:
    exe, argv, _ = described(writer.pid)
    return Caller(session, writer.pid, str(writer.proc), exe, os.path.basename(argv[0]) if argv else "")
