"""The gateway process of one session: started by the supervisor at the session's first need, ended with it.

    supervisor --fd--> hello -> authority, resolver, doors -> ready -> frames until the connection ends

It takes no signals of the agent's terminal, opens nothing of the agent's, and keeps no descriptor but its link, its
listeners and its journal. It cannot be looked into by other processes of the user (not dumpable): it holds credentials.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

from remit_daemon.gateway import parts
from remit_daemon.gateway.accept import Doors
from remit_daemon.gateway.authority import Authority
from remit_daemon.gateway.broker import Broker
from remit_daemon.gateway.context import Context
from remit_daemon.gateway.dial import Dialer
from remit_daemon.gateway.dns.hosts import HOSTS, RESOLV_CONF, Hosts, search_list
from remit_daemon.gateway.dns.names import Names
from remit_daemon.gateway.dns.resolver import Resolver
from remit_daemon.gateway.dns.stub import UdpStub
from remit_daemon.gateway.dns.upstream import Upstream
from remit_daemon.gateway.dns.watch import Watch
from remit_daemon.gateway.journal import Journal
from remit_daemon.gateway.supervisor import Malformed, Supervisor
from remit_daemon.wire.frames import FrameError
from remit_policy import model

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VERSION = 1
HELLO_WITHIN = 10.0  # seconds; the supervisor says it in one go with the start
_IGNORED = ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGPIPE", "SIGWINCH")
_PR_SET_DUMPABLE = 4  # prctl(2)
KINDS = ("tcp", "tcp6", "proxy", "dns_tcp", "dns_udp")
DNS_ADDRESS = "127.0.0.99"  # what the agent's resolv.conf names


def main(argv: list[str]) -> int:
    """Run the gateway: ``--fd N [LISTENER...]`` are descriptors that the supervisor passed. Returns the exit status."""
    try:
        if argv[0] != "--fd":
            raise ValueError(argv[0])
        fd, *listeners = [int(a) for a in argv[1:]]
    except (IndexError, ValueError):
        print("remit gateway: started by remit itself only", file=sys.stderr)
        return 2
    _settle(fd, listeners)
    try:
        return asyncio.run(_main(fd, listeners))
    except (EOFError, ConnectionError):
        return 0  # the supervisor is gone
    except (Malformed, FrameError, model.SnapshotError, OSError, TimeoutError) as e:
        logging.getLogger("remit.gateway").error("%s", e or type(e).__name__)
        return 1


def _settle(fd: int, listeners: list[int]) -> None:
    """Let go of the terminal and of every descriptor that is not ours."""
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        os.setsid()
    except OSError:
        pass  # already a leader
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir("/")
    os.umask(0o077)
    kept = sorted({0, 1, 2, fd, *listeners})
    for low, high in pairwise(kept):
        os.closerange(low + 1, high)
    os.closerange(kept[-1] + 1, (1 << 31) - 1)  # close_range(2): the kernel walks only what is open


async def _main(fd: int, inherited: list[int]) -> int:
    link = Supervisor(fd)
    async with asyncio.timeout(HELLO_WITHIN):
        hello = await link.hello()
    if hello["version"] != VERSION:
        raise Malformed(f"version {hello['version']} is not {VERSION}")
    gateway = Gateway(hello, link)
    gateway.listen(_listeners(hello, inherited))
    broker = asyncio.ensure_future(gateway.broker.run())
    try:
        await gateway.prepare()
        link.say(gateway.ready())
        await link.serve(gateway.handlers)
    finally:
        await gateway.broker.farewell()
        broker.cancel()
        gateway.close()
    return 0


class Gateway:
    """Everything of one session, put together from the supervisor's ``hello``."""

    def __init__(self, hello: dict[str, Any], link: Supervisor) -> None:
        """Raises SnapshotError, OSError (the journal cannot be made)."""
        snapshot = model.loads(hello["snapshot"])
        state = os.path.dirname(hello["spool"])
        self.log = _log(state)
        self.journal = Journal(hello["journal"])
        self.authority = Authority(snapshot, self.journal, agent=hello["agent"], hold=hello["hold"] / 1000)
        self.authority.revision = hello["revision"]
        self.resolver = Resolver(
            self.authority,
            Names(),
            Watch(),
            Hosts(str(hello.get("hosts") or HOSTS)),
            Upstream(hello["nameservers"]),
            search_list(str(hello.get("resolv_conf") or RESOLV_CONF)),
        )
        ports: set[int] = set()
        self._own_ports = ports
        self.dialer = Dialer(self.authority, self.resolver, ports)
        self.ctx = Context(
            self.authority,
            self.dialer,
            session=hello["session"],
            agent=hello["agent"],
            private=hello["private"],
            state=state,
            home=hello["home"],
            env={str(k): str(v) for k, v in hello["env"].items()},
            session_bus=hello["session_bus"],
            system_bus=hello["system_bus"],
            log=self.log,
        )
        self.broker = Broker(hello["control"], hello["session"], hello["tag"], self.authority, self.log)
        self.doors = Doors(self.ctx, self.dialer, self.resolver, link.say)
        self.handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "dial": self.doors.dial,
            "bound": self.doors.bound,
            "proxy": self.doors.proxy,
            "dns": self.doors.dns,
            "resolver": self.doors.resolver,
            "bus": self.doors.bus,
            "gone": self.doors.gone,
        }
        self._udp: UdpStub | None = None
        self._dns4 = ""

    def listen(self, listeners: dict[str, socket.socket]) -> None:
        """Open the doors."""
        for kind, sock in listeners.items():
            self._own_ports.add(sock.getsockname()[1])
            if kind == "dns_udp":
                self._dns4 = "{}:{}".format(*sock.getsockname()[:2])
                self._udp = UdpStub(sock, self.resolver, self.doors.who_asks)
            else:
                self.doors.listen(kind, sock)

    async def prepare(self) -> None:
        """Have the credentials' part ready before the agent sees its environment."""
        if self.ctx.secrets:
            await parts.of("prepare_secrets")(self.ctx)

    def ready(self) -> dict[str, Any]:
        """Return the frame that says where the doors are."""
        ports = self.doors.ports
        return {
            "type": "ready",
            "tcp": ports.get("tcp", 0),
            "tcp6": ports.get("tcp6", 0),
            "dns4": self._dns4,
            "dns_tcp": ports.get("dns_tcp", 0),
            "proxy": ports.get("proxy", 0),
            "placeholders": self.ctx.placeholders,
        }

    def close(self) -> None:
        """End what is open."""
        self.doors.close()
        if self._udp is not None:
            self._udp.close()


def _listeners(hello: dict[str, Any], inherited: list[int]) -> dict[str, socket.socket]:
    """Return the listeners that the supervisor made before the agent started; make those that it did not."""
    found: dict[str, socket.socket] = {}
    for kind, fd in zip(hello.get("listeners") or (), inherited, strict=False):
        if kind in KINDS:
            found[kind] = socket.socket(fileno=fd)
            os.set_inheritable(fd, False)
    for kind in KINDS:
        if kind not in found:
            try:
                found[kind] = _listener(kind)
            except OSError:
                if kind != "tcp6":  # a machine without IPv6
                    raise
    return found


def _listener(kind: str) -> socket.socket:
    family = socket.AF_INET6 if kind == "tcp6" else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM if kind == "dns_udp" else socket.SOCK_STREAM)
    try:
        if kind == "tcp6":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::1" if kind == "tcp6" else DNS_ADDRESS if kind.startswith("dns") else "127.0.0.1", 0))
        if kind != "dns_udp":
            sock.listen(socket.SOMAXCONN)
    except BaseException:
        sock.close()
        raise
    return sock


MAX_LOG = 1 << 20  # bytes; what is longer is begun anew: it is for faults, the ledger has the acts


def _log(state: str) -> logging.Logger:
    log = logging.getLogger("remit.gateway")
    log.propagate = False
    path = state + "/gateway.log"
    try:
        long = os.path.exists(path) and os.path.getsize(path) > MAX_LOG
        handler: logging.Handler = logging.FileHandler(path, mode="w" if long else "a", delay=True)
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    log.addHandler(handler)
    logging.getLogger("asyncio").addHandler(handler)
    logging.getLogger("asyncio").propagate = False
    return log
