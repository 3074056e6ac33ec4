"""What every part of the gateway is given: who decides, how names are resolved and dialled, where files lie."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    import socket
    from typing import Protocol

    from remit_daemon.gateway.authority import Authority, Origin
    from remit_policy.model import Secret

    class Dialer(Protocol):
        """Resolving and connecting, by policy (``gateway.dial``)."""

        async def resolve(self, name: str, origin: Origin) -> list[str]: ...
        async def dial(
            self, host: str, port: int, origin: Origin, *, gone: asyncio.Event | None = None
        ) -> socket.socket: ...


class Context:
    """One session's gateway.

    ``private`` is a directory (0700) outside the session that ends with it, ``state`` remit's state directory,
    ``home`` the person's. ``env`` holds the values of environment-sourced secrets, ``session_bus`` and ``system_bus``
    the buses' real addresses ("" = none). ``placeholders`` is filled by the credentials' part before `ready`: the
    variables that the agent gets.
    """

    def __init__(
        self,
        authority: Authority,
        dialer: Dialer,
        *,
        session: str = "",
        agent: str = "",
        private: str = "",
        state: str = "",
        home: str = "",
        env: dict[str, str] | None = None,
        session_bus: str = "",
        system_bus: str = "",
        log: logging.Logger | None = None,
    ) -> None:
        self.authority = authority
        self.dialer = dialer
        self.session = session
        self.agent = agent
        self.private = private
        self.state = state
        self.home = home
        self.env = env or {}
        self.session_bus = session_bus
        self.system_bus = system_bus
        self.log = log or logging.getLogger("remit.gateway")
        self.placeholders: dict[str, str] = {}
        self.parts: dict[str, object] = {}  # what a part keeps for the session, by the part's name

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The snapshot's secrets, those of now."""
        return self.authority.snapshot.secrets

    async def resolve(self, name: str, origin: Origin) -> list[str]:
        """Return the addresses of ``name``, pinned for the session, IPv6 and IPv4 as upstream gives them.

        Policy (`resolve`) comes first; raises authority.Refused, or OSError (EHOSTUNREACH) when there are none.
        """
        return await self.dialer.resolve(name, origin)

    async def dial(
        self, host: str, port: int, origin: Origin, *, gone: asyncio.Event | None = None
    ) -> socket.socket:
        """Return a connected non-blocking TCP socket to ``host`` (a name or an address literal).

        The caller holds a permit for it already: this resolves without asking, refuses special addresses that no
        rule names, and connects. Raises authority.Refused, or OSError with the errno of the last attempt.
        """
        return await self.dialer.dial(host, port, origin, gone=gone)
