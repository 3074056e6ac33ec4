"""Connect to a host for a program outside sessions: decided on by name, resolved and dialled here, the socket handed over.

Not for programs inside a session: their connects are made by the gateway, which also holds them to the name that was decided on (TLS server
name, HTTP Host) and reads requests where there are rules for them. A bare socket would be a way round all that.

An address that a rule denies is not dialled, and a special one (private, loopback, metadata…) only where a rule names it or it was asked
for itself, so a name's owner cannot point it into this machine or its network.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING

from remit_daemon.gateway.dial import first_of, plain
from remit_daemon.gateway.dns.resolver import literal
from remit_daemon.runtime.lines import Problem
from remit_daemon.runtime.opening import denied
from remit_daemon.wire.rpc import DENIED, INVALID_PARAMS
from remit_policy import hosts as spelling
from remit_policy.model import ALLOW, DENY

if TYPE_CHECKING:
    from remit_daemon.runtime.asks import Caller, Told
    from remit_daemon.runtime.daemon import Daemon

WITHIN = 30.0  # seconds to resolve and connect: the caller waits, and could do it by itself
_OPS = ("connect",)


class Dialling:
    """Connects for callers. One for the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def connect(
        self, caller: Caller, host: str, port: int, purpose: str, wait: float | None
    ) -> tuple[str, str, int]:
        """Return (resource, address, blocking socket's descriptor). Raises Problem, and what ``settle`` raises."""
        if not 0 < port < 65536:
            raise Problem(INVALID_PARAMS, "port is a number from 1 to 65535")
        try:
            host = plain(spelling.canonical(host))
        except spelling.HostError as e:
            raise Problem(INVALID_PARAMS, f"no host name: {e}") from None
        address = spelling.is_address(host)
        resource = literal(host, port) if address else f"{host}:{port}"
        broker = self._daemon.broker
        if broker.state.sessions[caller.session].confined:
            raise self._refused(
                caller, resource, "connect as usual: a session's connections are made by its gateway"
            )
        if not address and broker.decide(caller.session, ("resolve",), host).verdict == DENY:
            raise self._refused(caller, resource, "the policy denies to resolve it")
        told = await self._daemon.asks.settle(
            caller, _OPS, resource, purpose=purpose, wait=wait, note="for it, by remitd"
        )
        if told.verdict != "allow":
            raise denied(_OPS, resource, told)
        return await self._dial(caller, host, port, resource, told)

    async def _dial(
        self, caller: Caller, host: str, port: int, resource: str, told: Told
    ) -> tuple[str, str, int]:
        outcome = "EIO"
        try:
            async with asyncio.timeout(WITHIN):
                fitting = await self._fitting(caller, host, port)
                if not fitting:
                    outcome = "refused"
                    text = f"{host} leads to special addresses that no rule names, or to denied ones"
                    raise Problem(
                        DENIED,
                        text,
                        {"op": "connect", "resource": resource, "rule": "built-in: special addresses"},
                    )
                sock = await first_of(fitting, port)
            outcome = "ok"
        except (OSError, TimeoutError) as e:
            number = e.errno if isinstance(e, OSError) and e.errno and e.errno > 0 else errno.ETIMEDOUT
            number = errno.EHOSTUNREACH if isinstance(e, socket.gaierror) else number
            outcome = errno.errorcode.get(number, "EIO")
            raise Problem(
                DENIED, f"{resource}: {os.strerror(number)}", {"resource": resource, "errno": outcome}
            ) from None
        except asyncio.CancelledError:
            outcome = "gone"
            raise
        finally:
            self._daemon.asks.done(told.row, outcome)
        there = sock.getpeername()[0]
        sock.setblocking(True)
        return resource, there, sock.detach()

    async def _fitting(self, caller: Caller, host: str, port: int) -> list[str]:
        """Return the addresses of ``host`` that may be dialled for it. Raises OSError."""
        if spelling.is_address(host):
            return [host]
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [
            a
            for a in dict.fromkeys(plain(str(entry[4][0])) for entry in found)
            if self._fits(caller, host, a, port)
        ]

    def _fits(self, caller: Caller, host: str, address: str, port: int) -> bool:
        if "%" in address:
            return False  # a zone: of a link of this machine's
        verdict = self._daemon.broker.decide(caller.session, _OPS, literal(address, port)).verdict
        why = spelling.is_special(address)
        if host == spelling.LOCAL and why == "loopback":
            return True
        return verdict != DENY if not why else verdict == ALLOW

    def _refused(self, caller: Caller, resource: str, why: str) -> Problem:
        self._daemon.asks.refuse(caller, _OPS, resource, why)
        return Problem(
            DENIED,
            f"{resource}: {why}",
            {"op": "connect", "resource": resource, "rule": "built-in: connect"},
        )
