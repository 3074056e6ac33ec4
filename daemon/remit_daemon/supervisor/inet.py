"""Internet sockets: connect, bind, listen, and where datagrams go.

All is done by us on a duplicate of the target's socket (its address and its number could change after we looked), and
Landlock denies the target's own TCP connects and binds should anything slip by. Where a connection ends:

    the gateway's proxy port            there, announced
    any other port of the gateway       refused
    port 53 of a nameserver             the gateway's resolver
    this machine, a port of the session's own   there
    this machine otherwise              there, if the policy or the person allows ``localhost:PORT``; through the gateway
                                        where it has rules for requests, or a secret
    anywhere else                       the gateway's listener, once the gateway has said that it may and can be reached

Datagrams go to the resolver and to this machine alone; elsewhere is refused (QUIC falls back). A query of a program that wants its
answer from the very nameserver it asked (musl) is sent there, after the gateway has looked at the name.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct

from remit_daemon.kernel import calls
from remit_daemon.peers import ports
from remit_daemon.supervisor import messages, target
from remit_daemon.supervisor.act import Act
from remit_daemon.wire.gateway import NAMESERVER
from remit_policy import hosts, model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.supervisor.act import Effect, Note
    from remit_daemon.supervisor.authority import Authority
    from remit_daemon.supervisor.gateway import Gateway
    from remit_daemon.supervisor.listeners import OwnPorts
    from remit_daemon.supervisor.record import Journal
    from remit_daemon.supervisor.target import Process, Targets

AF_INET, AF_INET6 = 2, 10
STREAM, DGRAM = 1, 2
_SOL_SOCKET, _SO_TYPE, _SO_DOMAIN = 1, 3, 39  # <asm-generic/socket.h>
_TCP_INFO, _CLOSED = 11, 7  # <linux/tcp.h>; TCP_CLOSE of <net/tcp_states.h>
_DNS = 53
_ANY = b"\0" * 16
_MAPPED = b"\0" * 10 + b"\xff\xff"
_LOOPBACK4, _LOOPBACK6 = b"\x7f\0\0\1", b"\0" * 15 + b"\1"
_OWN = model.Rule(model.PACK, model.ALLOW, "connect", "/**", source="built-in: a port of the session's own")
_GATEWAY = model.Rule(model.PACK, model.ALLOW, "connect", "/**", source="built-in: decided by the gateway")
_FREE = model.Rule(model.PACK, model.ALLOW, "listen", "/**", source="built-in: no address of its own")
_UDP = model.Rule(
    model.PACK, model.DENY, "connect", "/**", source="built-in: datagrams to this machine alone"
)
_PORTS = model.Rule(model.PACK, model.DENY, "connect", "/**", source="built-in: the gateway's own ports")
_KEPT = model.Rule(
    model.PACK, model.DENY, "listen", "/**", source="built-in: a secret is bound to this port"
)
_TAKEN = model.Rule(
    model.PACK, model.DENY, "listen", "/**", source="built-in: another program listens at this port"
)
_WORKED = model.Rule(
    model.PACK,
    model.DENY,
    "connect",
    "/**",
    source="built-in: a program that is debugged there would act for you",
)
_TRANSLATED = model.Rule(
    model.PACK, model.DENY, "connect", "/**", source="built-in: this machine by way of a translator"
)
_UNMEDIATED = model.Rule(model.PACK, model.ALLOW, "connect", "/**", source="net.all: unmediated")


class Fd:
    """A descriptor that an act holds."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        target.let_go(self.fd)


class Inet:
    """The handlers of what concerns internet sockets; ``sockets`` sends each call here by its family."""

    def __init__(
        self,
        authority: Authority,
        targets: Targets,
        journal: Journal,
        gateway: Gateway,
        own: OwnPorts,
        nameservers: list[str],
        named: Callable[[bytes], list[str]],
        listener: Callable[[], int],
    ) -> None:
        """``nameservers`` are the machine's; ``named`` gives the names that /etc/hosts has for an address."""
        self._authority = authority
        self._targets = targets
        self._journal = journal
        self._gateway = gateway
        self._own = own
        self._named = named
        self.listener = listener
        self._stub = bytes(map(int, NAMESERVER.split(".")))
        self._nameservers = {hosts.packed(hosts.canonical(n)) for n in nameservers}
        self._refused: set[tuple[bytes, int]] = set()

    # -- connect -----------------------------------------------------------------------------------

    def connect(self, note: Note, fd: int, raw: bytes) -> Act | Effect:
        """connect(fd, address, length) where ``raw`` is an internet address"""
        where, port = parse(raw)
        sock = target.take_fd(note.tid, fd)
        try:
            domain = calls.socket_option(sock, _SOL_SOCKET, _SO_DOMAIN)
            kind = calls.socket_option(sock, _SOL_SOCKET, _SO_TYPE)
            if domain not in (AF_INET, AF_INET6):
                raise OSError(errno.EAFNOSUPPORT, "not an internet socket")
            if domain == AF_INET and raw[0] == AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "an IPv6 address for an IPv4 socket")
            if domain == AF_INET6 and raw[0] == AF_INET and kind == STREAM:
                raise OSError(errno.EAFNOSUPPORT, "an IPv4 address for an IPv6 socket")
            if self._authority.snapshot.net_all:
                return self._direct(note, sock, raw, _inet(where, port), _UNMEDIATED)
            if kind == DGRAM:
                return self._connect_datagram(note, sock, domain, where, port)
            if kind != STREAM:
                raise OSError(errno.EACCES, "a socket of this kind")
            if _tcp_state(sock) != _CLOSED:
                return self._again(sock, domain)
            return self._connect_stream(note, sock, domain, where, port, raw)
        except BaseException:
            target.let_go(sock)
            raise

    @staticmethod
    def _again(sock: int, domain: int) -> Act:
        """Connect what is connected, connecting or listening: the kernel says which, or waits, and looks at no address.

        A shutdown(2) meanwhile makes it closed, so the address is one that nobody can have: port 0 of this machine.
        """
        nowhere = _sockaddr(domain, _LOOPBACK6 if domain == AF_INET6 else _LOOPBACK4, 0)

        def perform() -> Effect:
            return calls.call("connect", sock, nowhere, len(nowhere))

        return Act("connect", (), perform, (Fd(sock),), path="again", rule=_OWN, slow=True, silent=True)

    def _connect_stream(
        self, note: Note, sock: int, domain: int, where: bytes, port: int, raw: bytes
    ) -> Act | Effect:
        if port == _DNS and self._is_nameserver(where):
            return self._to_resolver(note, sock, domain, stream=True)
        if not hosts.is_local(where):
            return self._through(note, sock, domain, where, port)
        if not _is_here(where):
            self._deny(note, _inet(where, port), _TRANSLATED)
        name = self._gateway.listeners.name_of(port)
        if name == "proxy":
            return self._announced(
                note, sock, domain, "proxy", _sockaddr(domain, _LOOPBACK4, port), v6=False
            )
        if name:
            self._deny(note, hosts.join(hosts.LOCAL, port), _PORTS)
        resource = hosts.join(hosts.LOCAL, port)
        there = ports.listening(port)
        if not there and self._authority.engine.decide("connect", resource).verdict != model.ALLOW:
            raise OSError(errno.ECONNREFUSED, "nobody listens")  # nobody is asked about nothing
        if self._own.all_made(there):
            return self._direct(note, sock, raw, resource, _OWN)
        if self._authority.is_read(port):
            return self._through(note, sock, domain, where, port)
        decision = self._authority.decide("connect", resource)
        named = decision.rule is not None and decision.rule.pattern == resource
        if not named and (app := ports.application(port, there)):
            if app == ports.DEBUGGER:
                self._deny(note, resource, _WORKED)
            return self._direct(note, sock, raw, app, None, op="use", text=resource)
        if decision.verdict != model.ALLOW:
            for other in self._named(where):
                if self._authority.decide("connect", hosts.join(other, port)).verdict == model.ALLOW:
                    return self._through(note, sock, domain, where, port)
        return self._direct(note, sock, raw, resource, None)

    def _direct(
        self,
        note: Note,
        sock: int,
        raw: bytes,
        resource: str,
        rule: model.Rule | None,
        op: str = "connect",
        text: str = "",
    ) -> Act:
        """Connect to the address itself, by ``rule``, or by the policy's word on ``op`` and ``resource``."""
        accesses = () if rule else ((op, resource),)

        def perform() -> Effect:
            return calls.call("connect", sock, raw, len(raw))

        # Beside the loop even where it does not block now: another thread of the target's may have it block meanwhile.
        return Act(op, accesses, perform, (Fd(sock),), path=resource, rule=rule, slow=True, note=text)

    def _through(self, note: Note, sock: int, domain: int, where: bytes, port: int) -> Act:
        """Connect through the gateway, which decides, records and reaches it."""
        v6 = domain == AF_INET6 and where[:12] != _MAPPED
        name = "tcp6" if v6 else "tcp"
        if name not in self._gateway.listeners.ports:
            raise OSError(errno.ENETUNREACH, "no IPv6 here")
        process, exe, comm = self._who(note)
        blocking = _blocking(sock)
        there = _sockaddr(domain, _LOOPBACK6 if v6 else _LOOPBACK4, self._gateway.listeners.ports[name])
        ip = hosts.show(where)

        def perform() -> Effect:
            def gone() -> bool:
                return not calls.id_valid(self.listener(), note.id)

            id, answer = self._gateway.ask(
                "dial", process, exe, comm, gone, ip=ip, port=port, blocking=blocking
            )
            if answer["errno"]:
                raise OSError(int(answer["errno"]), str(answer["why"]))
            return self._join(sock, there, "bound", process, exe, comm, id=id, v6=v6)

        return Act(
            "connect", (), perform, (Fd(sock),), path=hosts.join(ip, port), rule=_GATEWAY, slow=True, silent=True
        )  # fmt: skip

    def _announced(
        self, note: Note, sock: int, domain: int, kind: str, there: bytes, **fields: bool
    ) -> Act:
        process, exe, comm = self._who(note)

        def perform() -> Effect:
            self._gateway.start()
            return self._join(sock, there, kind, process, exe, comm, **fields)

        return Act("connect", (), perform, (Fd(sock),), path=kind, rule=_GATEWAY, slow=True, silent=True)

    def _join(
        self,
        sock: int,
        there: bytes,
        kind: str,
        process: Process,
        exe: str,
        comm: str,
        **fields: int | bool,
    ) -> int:
        """Connect to the gateway's listener ``there`` and say which port the target's end has."""
        waiting: OSError | None = None
        result = 0
        try:
            result = calls.call("connect", sock, there, len(there))
        except OSError as e:
            if e.errno != errno.EINPROGRESS:
                raise
            waiting = e
        self._gateway.say(kind, process, exe, comm, port=_local_port(sock), **fields)
        if waiting is not None:
            raise waiting
        return result

    def _to_resolver(self, note: Note, sock: int, domain: int, *, stream: bool) -> Act:
        there = _sockaddr(
            domain, self._stub, self._gateway.listeners.ports["dns_tcp" if stream else "dns_udp"]
        )
        return self._announced(note, sock, domain, "resolver", there, tcp=stream)

    def _connect_datagram(
        self, note: Note, sock: int, domain: int, where: bytes, port: int
    ) -> Act | Effect:
        if port == _DNS and self._is_nameserver(where):
            return self._to_resolver(note, sock, domain, stream=False)
        there = _sockaddr(domain, where, port)
        if where in (_ANY, _MAPPED + b"\0\0\0\0") or not _is_here(where) or not port:
            # getaddrinfo(3) only asks which of its own addresses would be used (RFC 3484); the answer is: none.
            self._deny_once(note, where, port)
        resource = hosts.join(hosts.LOCAL, port)
        if port in self._gateway.listeners.ports.values():
            self._deny(note, resource, _PORTS)
        return self._direct(note, sock, there, resource, None)

    # -- bind and listen ---------------------------------------------------------------------------

    def bind(self, note: Note, fd: int, raw: bytes) -> Act | Effect:
        """bind(fd, address, length): who may listen is decided when it listens, or at once for datagrams"""
        where, port = parse(raw)
        sock = target.take_fd(note.tid, fd)
        try:
            domain = calls.socket_option(sock, _SOL_SOCKET, _SO_DOMAIN)
            kind = calls.socket_option(sock, _SOL_SOCKET, _SO_TYPE)
            if domain not in (AF_INET, AF_INET6):
                raise OSError(errno.EINVAL, "not an internet socket")

            def perform() -> Effect:
                return calls.call("bind", sock, raw, len(raw))

            if self._authority.snapshot.net_all:
                return Act("listen", (), perform, (Fd(sock),), path=_inet(where, port), rule=_UNMEDIATED)
            if kind == DGRAM and port:
                resource = _listening(where, port)
                return Act("listen", (("listen", resource),), perform, (Fd(sock),), path=resource)
            return Act("listen", (), perform, (Fd(sock),), path="bind", rule=_FREE, silent=True)
        except BaseException:
            target.let_go(sock)
            raise

    def listen(self, note: Note, sock: int, backlog: int) -> Act | Effect:
        """listen(fd, backlog) of the internet socket ``sock``, which is ours to close"""
        own, unmediated = self._own, self._authority.snapshot.net_all
        try:
            name = _getsockname(sock)

            def perform() -> Effect:
                if _getsockname(sock) != name and not unmediated:
                    raise OSError(errno.EINVAL, "bound anew while its address was asked about")
                result = calls.call("listen", sock, backlog)
                own.made(sock)
                return result

            if unmediated:
                return Act("listen", (), perform, (Fd(sock),), path="listen", rule=_UNMEDIATED)
            where, port = parse(name)
            if not port:
                # Without a bind the kernel takes a port of its choice at every address.
                calls.call("bind", sock, name, len(name))
                name = _getsockname(sock)
                where, port = parse(name)
            resource = _listening(where, port)
            if self._authority.has_secret(port):
                # Who served there would be told it.
                self._deny(note, resource, _KEPT, "listen")
            there = ports.listening(port)
            if there and not own.all_made(there):
                # At another address of this machine, or beside it (SO_REUSEPORT): it would get what is meant for that one.
                self._deny(note, resource, _TAKEN, "listen", errno.EADDRINUSE)
            return Act("listen", (("listen", resource),), perform, (Fd(sock),), path=resource)
        except BaseException:
            target.let_go(sock)
            raise

    # -- datagrams ---------------------------------------------------------------------------------

    def send(self, sending: messages.Sending) -> Act | Effect:
        """Messages on an internet socket: connected ones as they are, others to where datagrams may go"""
        note = sending.note
        if sending.kind == STREAM:
            # The address of a connected stream means nothing; fast open, which would connect, is refused by the filter.
            return messages.act(sending, [b""] * len(sending.messages), self.listener, "send")
        names: list[bytes] = []
        rule: model.Rule | None = None
        for message in sending.messages:
            if not message.name:
                names.append(b"")
                continue
            where, port = parse(message.name)
            if port == _DNS and self._is_nameserver(where):
                if len(sending.messages) > 1:
                    raise OSError(errno.EACCES, "several queries at once")
                return self._query(sending, where)
            if not _is_here(where) or port in self._gateway.listeners.ports.values():
                self._deny_once(note, where, port)
            resource = hosts.join(hosts.LOCAL, port)
            decision = self._authority.decide("connect", resource)
            if decision.verdict != model.ALLOW:
                self._deny_once(note, where, port)
            rule = decision.rule
            self._journal.datagram(note.tid, resource, decision)
            names.append(message.name)
        return messages.act(sending, names, self.listener, "send", rule)

    def _query(self, sending: messages.Sending, where: bytes) -> Act | Effect:
        """A query on an unconnected socket, to the nameserver ``where``."""
        message, note = sending.messages[0], sending.note
        size = message.size
        if where[12:] == self._stub or size > _MAX_QUERY:
            sending.close()
            return size  # as lost: the same query goes to the machine's own nameserver as well, which it expects to answer
        query = sending._read(message, 0, size)
        process, exe, comm = self._who(note)

        def perform() -> Effect:
            def gone() -> bool:
                return not calls.id_valid(self.listener(), note.id)

            _, answer = self._gateway.ask("dns", process, exe, comm, gone, query=query)
            if answer["verdict"] != "allow":
                return size  # as lost; the gateway has recorded why
            return calls.send_message(
                sending.sock, message.name, query, [], message.flags | messages.MSG_NOSIGNAL
            )

        return Act("resolve", (), perform, (sending,), path="dns", rule=_GATEWAY, slow=True, silent=True)

    # -- helpers -----------------------------------------------------------------------------------

    def _is_nameserver(self, where: bytes) -> bool:
        full = where if len(where) == 16 else _MAPPED + where
        return (full[12:] == self._stub and full[:12] == _MAPPED) or full in self._nameservers

    def _who(self, note: Note) -> tuple[Process, str, str]:
        process = self._targets.process(note.tid)
        return process, self._targets.exe(process), target.comm(process.tgid)

    def _deny(
        self, note: Note, resource: str, rule: model.Rule, op: str = "connect", code: int = errno.EACCES
    ) -> None:
        process = self._targets.process(note.tid)
        self._journal.act(op, "deny", "refused", process, resource, rule=rule.source)
        raise OSError(code, resource)

    def _deny_once(self, note: Note, where: bytes, port: int) -> None:
        if (where, port) not in self._refused:
            if len(self._refused) >= _MAX_REFUSED:
                self._refused.clear()
            self._refused.add((where, port))
            self._deny(note, "udp " + hosts.of_address(where, port), _UDP)
        raise OSError(errno.EACCES, "datagram")


_MAX_QUERY = 4096  # bytes of a DNS query; real ones have some fifty
_MAX_REFUSED = 4096  # destinations whose refusal has been recorded


def parse(raw: bytes) -> tuple[bytes, int]:
    """Return the 16 bytes and the port of an internet address (ip(7), ipv6(7)). Raises OSError (EINVAL, EAFNOSUPPORT)."""
    family = raw[0] | raw[1] << 8
    if family == AF_INET:
        if len(raw) < 16:
            raise OSError(errno.EINVAL, "address too short")
        return _MAPPED + raw[4:8], raw[2] << 8 | raw[3]
    if family == AF_INET6:
        if len(raw) < 24:
            raise OSError(errno.EINVAL, "address too short")
        return raw[8:24], raw[2] << 8 | raw[3]
    raise OSError(errno.EAFNOSUPPORT, "not an internet address")


def _sockaddr(domain: int, where: bytes, port: int) -> bytes:
    """Return the address of ``where`` (4 or 16 bytes) for a socket of family ``domain``."""
    full = where if len(where) == 16 else _MAPPED + where
    if domain == AF_INET:
        return struct.pack("<H", AF_INET) + struct.pack(">H", port) + full[12:] + bytes(8)
    return struct.pack("<H", AF_INET6) + struct.pack(">HI", port, 0) + full + bytes(4)


def _is_here(where: bytes) -> bool:
    """Tell whether the kernel takes the 16 bytes for this machine; a policy says the same of what a translator would send here."""
    return hosts.is_local(where) and (where[:12] == _MAPPED or where[:12] == _ANY[:12])


def _inet(where: bytes, port: int) -> str:
    return hosts.join(hosts.show(where), port)


def _listening(where: bytes, port: int) -> str:
    if where in (_ANY, _MAPPED + b"\0\0\0\0"):
        return hosts.join(hosts.ANY, port)
    return hosts.of_address(where, port)


def _blocking(sock: int) -> bool:
    return not fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK


def _borrowed(sock: int) -> _socket.socket:
    return _socket.socket(fileno=os.dup(sock))


def _tcp_state(sock: int) -> int:
    borrowed = _borrowed(sock)
    try:
        return borrowed.getsockopt(_socket.IPPROTO_TCP, _TCP_INFO, 8)[0]
    finally:
        borrowed.close()


def _getsockname(sock: int) -> bytes:
    """Return the address of ``sock`` as bytes."""
    borrowed = _borrowed(sock)
    try:
        name = borrowed.getsockname()
        family = borrowed.family
    finally:
        borrowed.close()
    raw = _socket.inet_pton(family, name[0].partition("%")[0])
    return _sockaddr(int(family), raw, name[1])


def _local_port(sock: int) -> int:
    return parse(_getsockname(sock))[1]
