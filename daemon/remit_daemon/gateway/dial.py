"""Connecting outwards: which names an address stands for, what must be allowed, which addresses are tried.

    stand-in address     the name behind it is permitted (asked for), then resolved and dialled
    address with names   one of its names (history, hosts file) must be permitted; the very address is dialled
    other address        it must be permitted itself

On top of that, whatever name led there: an address that a rule denies is not dialled, and a special one (private,
loopback, link-local, metadata…) only when a rule names it, or when the hosts file, which is the administrator's, gives it
to that very name. So a name's owner cannot point it into this machine or its network.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from typing import TYPE_CHECKING

from remit_daemon.gateway.authority import Origin, Permit, Refused
from remit_daemon.gateway.dns.resolver import literal
from remit_daemon.peers import ports
from remit_policy import hosts as spelling
from remit_policy.model import ALLOW, ASK, DENY

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from remit_daemon.gateway.authority import Authority
    from remit_daemon.gateway.dns.resolver import Resolver

STAGGER = 0.25  # seconds before the next address is tried beside the first (RFC 8305 5)
MAX_TRIED = 8  # addresses of one name; each costs a descriptor and a SYN
CONNECT_LIMIT = 150.0  # seconds; the kernel itself gives up after some 130 (tcp_syn_retries = 6)
_SPECIAL_RULE = "built-in: special addresses"


class Opened:
    """A permitted connection: where the agent wanted to go, under which names (the decided one first), and the socket."""

    __slots__ = ("ip", "names", "permit", "port", "upstream")

    def __init__(
        self, ip: str, port: int, names: tuple[str, ...], upstream: socket.socket, permit: Permit
    ) -> None:
        self.ip = ip
        self.port = port
        self.names = names
        self.upstream = upstream
        self.permit = permit

    def abandon(self, outcome: str) -> None:
        """Close it unused."""
        self.upstream.close()
        self.permit.done(outcome)


class Dialer:
    """The way out. ``own_ports`` are the gateway's listeners, which nobody is connected to from here."""

    def __init__(self, authority: Authority, resolver: Resolver, own_ports: Container[int] = ()) -> None:
        self._authority = authority
        self._resolver = resolver
        self._own_ports = own_ports

    async def resolve(self, name: str, origin: Origin) -> list[str]:
        """Return the addresses of ``name`` (an address: itself), by policy. Raises Refused, OSError."""
        name = self._canonical(name, "resolve", origin)
        if spelling.is_address(name):
            return [name]
        (await self._authority.permit("resolve", name, origin)).done()
        return await self._resolver.addresses(name)

    async def dial(
        self, host: str, port: int, origin: Origin, *, gone: asyncio.Event | None = None
    ) -> socket.socket:
        """Return a connected socket to ``host``, for which the caller holds a permit. Raises Refused, OSError."""
        host = self._canonical(host, "connect", origin)
        if spelling.is_address(host):
            await self._fit(host, port, host, origin, gone)
            return await first_of([host], port)
        decision = self._authority.decide("resolve", host)
        resource = f"{host}:{port}"
        if decision.verdict == DENY:
            raise self._authority.refuse(
                "connect", resource, origin, "the policy denies to resolve it", decision.source
            )
        why = self._resolver.suspicion(host, decision.rule, origin) if decision.verdict == ALLOW else ""
        if why:
            (await self._authority.permit("connect", resource, origin, gone=gone, insist=why)).done()
            self._resolver.cleared(host)
        refused: Refused | None = None
        fitting: list[str] = []
        for address in await self._resolver.addresses(host):
            try:
                await self._fit(address, port, host, origin, gone)
                fitting.append(address)
            except Refused as e:
                refused = e
        if not fitting:
            assert refused is not None
            raise refused
        try:
            return await first_of(fitting, port)
        except OSError:
            self._resolver.names.unpin(host)
            raise

    async def open(self, ip: str, port: int, origin: Origin, gone: asyncio.Event | None = None) -> Opened:
        """Return the permitted and connected upstream of an agent's connect to ``ip`` and ``port``.

        Raises Refused when it must not be, OSError when it cannot be.
        """
        authority, resolver = self._authority, self._resolver
        ip = plain(ip)
        if resolver.names.is_stand_in(ip):
            name = resolver.names.behind(ip)
            if not name:
                raise authority.refuse(
                    "connect", literal(ip, port), origin, "no name stands behind this address any more",
                    "built-in: stand-ins", "look the name up again",
                )  # fmt: skip
            permit = await authority.permit("connect", f"{name}:{port}", origin, gone=gone)
            upstream = await self._or_done(permit, self.dial(name, port, origin, gone=gone))
            try:
                return Opened(peer(upstream), port, (name,), upstream, permit)
            except OSError:
                permit.done("ENOTCONN")
                raise
        fixed = resolver.hosts.names(ip)
        if spelling.is_local(spelling.packed(ip)):
            fixed = (spelling.LOCAL, *fixed)
        names = tuple(dict.fromkeys((*fixed, *resolver.names.of(ip))))
        if not names:
            permit = await authority.permit("connect", literal(ip, port), origin, gone=gone)
            upstream = await self._or_done(permit, self._literal(ip, port, origin))
            return Opened(ip, port, (), upstream, permit)
        verdicts = {n: authority.decide("connect", f"{n}:{port}").verdict for n in names}
        chosen = min(names, key=lambda n: (verdicts[n], n not in fixed))
        if verdicts[chosen] != DENY:
            await self._fit(ip, port, chosen, origin, gone)
        permit = await authority.permit("connect", f"{chosen}:{port}", origin, gone=gone)
        upstream = await self._or_done(permit, first_of([ip], port))
        return Opened(ip, port, (chosen, *[n for n in names if n != chosen]), upstream, permit)

    async def _literal(self, ip: str, port: int, origin: Origin) -> socket.socket:
        await self._fit_application(ip, port, origin, None)
        return await first_of([ip], port)

    @staticmethod
    async def _or_done(permit: Permit, dialling: _Dialling) -> socket.socket:
        try:
            return await dialling
        except OSError as e:
            permit.done(errno.errorcode.get(e.errno or 0, "EIO"), note=e.strerror or "")
            raise
        except Refused:
            permit.done("refused")
            raise
        except BaseException:
            permit.done("gone")
            raise

    def _canonical(self, name: str, op: str, origin: Origin) -> str:
        try:
            return plain(spelling.canonical(name))
        except spelling.HostError as e:
            raise self._authority.refuse(
                op, name, origin, f"no host name: {e}", "built-in: host names"
            ) from None

    def _not_ourselves(self, address: str, port: int, origin: Origin) -> None:
        if port in self._own_ports and spelling.is_special(address) in ("loopback", "unspecified"):
            raise self._authority.refuse(
                "connect", literal(address, port), origin, "the gateway does not connect to itself"
            )

    async def _fit_application(
        self, address: str, port: int, origin: Origin, gone: asyncio.Event | None
    ) -> None:
        """Return when what serves at a port of this machine may be reached, should it be an application. Raises Refused."""
        self._not_ourselves(address, port, origin)
        if not spelling.is_local(spelling.packed(address)):
            return
        resource = literal(address, port)
        rule = self._authority.decide("connect", resource).rule
        if rule is not None and rule.pattern == resource:
            return  # a policy means this very port
        app = ports.application(port, ports.listening(port))
        if app == ports.DEBUGGER:
            raise self._authority.refuse(
                "connect", resource, origin, "a program that is debugged there would act for you", "built-in: debuggers",
                f"a rule that allows connect to {resource} would let it",
            )  # fmt: skip
        if app:
            (await self._authority.permit("use", app, origin, note=resource, gone=gone)).done()

    async def _fit(
        self, address: str, port: int, name: str, origin: Origin, gone: asyncio.Event | None
    ) -> None:
        """Return when ``address`` may be dialled for the permitted ``name``. Raises Refused."""
        authority = self._authority
        await self._fit_application(address, port, origin, gone)
        resource = literal(address, port)
        decision = authority.decide("connect", resource)
        why = "a stand-in" if self._resolver.names.is_stand_in(address) else spelling.is_special(address)
        if decision.verdict == DENY:
            raise authority.refuse(
                "connect", resource, origin, f"the policy denies the address of {name}", decision.source
            )
        if (
            not why
            or name == address
            or name in self._resolver.hosts.names(address)
            or decision.verdict == ALLOW
        ):
            return
        if name == "localhost" and why == "loopback":
            return
        if decision.verdict == ASK and decision.rule is not None:
            note = f"the address of {name}"
            (await authority.permit("connect", resource, origin, note=note, gone=gone)).done()
            return
        raise authority.refuse(
            "connect", f"{name}:{port}", origin, f"{name} leads to {address} ({why}), which no rule names", _SPECIAL_RULE,
            f"a rule that allows connect to {resource} as well as the name would let it",
        )  # fmt: skip


if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    _Dialling = Coroutine[Any, Any, socket.socket]


def plain(address: str) -> str:
    """Return an address in its usual spelling, an IPv4-mapped one as IPv4; anything else as it is."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def peer(sock: socket.socket) -> str:
    """Return the address that ``sock`` is connected to. Closes it and raises OSError when the other side has gone already."""
    try:
        return str(sock.getpeername()[0])
    except OSError:
        sock.close()
        raise


def interleaved(addresses: Sequence[str]) -> list[str]:
    """Return addresses with the families in turn, the first one's first (RFC 8305 4)."""
    six = [a for a in addresses if ":" in a]
    four = [a for a in addresses if ":" not in a]
    first, second = (six, four) if addresses and ":" in addresses[0] else (four, six)
    out: list[str] = []
    for at in range(max(len(first), len(second))):
        out += first[at : at + 1] + second[at : at + 1]
    return out


async def _connect(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # What is near answers during the first call; the second then takes the result without a turn of the loop.
        sock.connect_ex((address, port))
        async with asyncio.timeout(CONNECT_LIMIT):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except TimeoutError:
        sock.close()
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
    except OSError as e:
        sock.close()
        # asyncio says "Connect call failed (address)", which is no reason
        raise OSError(e.errno, os.strerror(e.errno or errno.EIO)) from None
    except BaseException:
        sock.close()
        raise
    return sock


async def first_of(addresses: Sequence[str], port: int) -> socket.socket:
    """Return a socket connected to the first of ``addresses`` that answers; the next is tried beside it after STAGGER.

    Raises the OSError of the last one that failed.
    """
    if len(addresses) == 1:
        return await _connect(addresses[0], port)
    left = interleaved(addresses)[:MAX_TRIED]
    running: set[asyncio.Task[socket.socket]] = set()
    failed: OSError = OSError(errno.EHOSTUNREACH, "no address")
    try:
        while left or running:
            if left:
                running.add(asyncio.ensure_future(_connect(left.pop(0), port)))
            done, running = await asyncio.wait(
                running, timeout=STAGGER if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    for other in done - {task}:
                        if other.exception() is None:
                            other.result().close()
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                failed = error
        raise failed
    finally:
        for task in running:
            task.add_done_callback(_discard)
            task.cancel()


def _discard(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
