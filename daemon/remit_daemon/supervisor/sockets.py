"""connect, bind and the sockets that the filter leaves to us; and the calls that reach other processes by number.

In this release the network is refused, unless the role says ``net.all = true``: TCP and UDP are then unmediated, and each
surface says so. Of the Unix sockets a session reaches those that it made itself and remit's ``agent.sock``; with ``net.all``
others as well, but never remit's own and never those through which some helper would act for the agent.
Every connect is made by us on a duplicate of the target's socket: its address could change after we looked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from remit_daemon.kernel import calls
from remit_daemon.supervisor import target
from remit_daemon.supervisor.act import CONTINUE, Act
from remit_daemon.supervisor.authority import WRITE
from remit_daemon.supervisor.opens import int_of
from remit_policy import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remit_daemon.supervisor.act import Effect, Note
    from remit_daemon.supervisor.authority import Authority
    from remit_daemon.supervisor.record import Journal
    from remit_daemon.supervisor.resolve import Pin, Resolver
    from remit_daemon.supervisor.target import Targets

AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 0, 1, 2, 10, 16
_SOL_SOCKET, _SO_DOMAIN = 1, 39  # <asm-generic/socket.h>
_ADDRESS_MAX = 128  # sizeof(struct sockaddr_storage)
_SUN_PATH = 108
# Where the sockets of helpers live that act for whoever reaches them: the user's and the system's buses, systemd, key
# agents, containers, terminals and multiplexers, editors. Refused even with net.all.
_TMP = "/tmp/"  # noqa: S108 - looked at, not made
_HELPERS = (
    "/run/",
    "/var/run/",
    *(_TMP + n for n in ("tmux-", ".X11-unix/", ".ICE-unix/", "ssh-", "vscode-")),
)
_KINDS = {1: "stream", 2: "datagram", 3: "raw", 5: "seqpacket"}
_FAMILIES = {AF_UNIX: "unix", AF_INET: "inet", AF_INET6: "inet6"}
_UNMEDIATED = model.Rule(model.PACK, model.ALLOW, "connect", "/**", source="net.all: unmediated")
_REFUSED = model.Rule(model.PACK, model.DENY, "connect", "/**", source="built-in: no network")
_REFUSED_SOCKET = model.Rule(model.PACK, model.DENY, "connect", "/**", source="built-in: sockets of others")


class Sockets:
    """The handlers of socket calls."""

    def __init__(
        self,
        authority: Authority,
        resolver: Resolver,
        targets: Targets,
        journal: Journal,
        tmpdir: str,
        agent_socket: str,
    ) -> None:
        self._authority = authority
        self._resolver = resolver
        self._targets = targets
        self._journal = journal
        self._tmpdir = tmpdir + "/"
        self._agent_socket = agent_socket

    def _refuse(self, note: Note, what: str, rule: model.Rule, op: str = "connect") -> Effect:
        try:
            process = self._targets.process(note.tid)
        except OSError:
            process = None
        self._journal.act(op, "deny", "refused", process, what, rule=rule.source)
        raise OSError(errno.EACCES, what)

    def _allowed(self, note: Note, what: str, rule: model.Rule, op: str = "connect") -> int:
        return self._journal.act(
            op, "allow", "pending", self._targets.process(note.tid), what, rule=rule.source
        )

    def socket(self, note: Note) -> Act | Effect:
        """socket(family, type, protocol), of the kinds that the filter does not allow by itself"""
        family, kind = note.args[0] & 0xFFFFFFFF, note.args[1] & 0xF
        what = f"{_FAMILIES.get(family, family)} {_KINDS.get(kind, kind)}"
        return self._refuse(note, f"socket {what}", _REFUSED)

    def sendto(self, note: Note) -> Act | Effect:
        """sendto with an address: only sockets that may send anywhere exist, so there is nothing to decide"""
        return CONTINUE

    def connect(self, note: Note) -> Act | Effect:
        """connect(fd, address, length)"""
        a = note.args
        raw = self._address(note, a[1], a[2])
        fd = int_of(a[0])
        family = struct.unpack_from("<H", raw)[0]
        if family == AF_UNIX:
            return self._connect_unix(note, fd, raw)
        if family in (AF_UNSPEC, AF_NETLINK):
            return self._plain(note, fd, raw)
        what = _inet(raw)
        if not self._authority.snapshot.net_all:
            return self._refuse(note, what, _REFUSED)
        return self._on_behalf("connect", note, fd, raw, what)

    def bind(self, note: Note) -> Act | Effect:
        """bind(fd, address, length)"""
        a = note.args
        raw = self._address(note, a[1], a[2])
        fd = int_of(a[0])
        family = struct.unpack_from("<H", raw)[0]
        if family == AF_UNIX:
            return self._bind_unix(note, fd, raw)
        if family == AF_NETLINK:
            return self._plain(note, fd, raw)
        what = "listen " + _inet(raw)
        if not self._authority.snapshot.net_all:
            return self._refuse(note, what, _REFUSED)
        return self._on_behalf("bind", note, fd, raw, what)

    def listen(self, note: Note) -> Act | Effect:
        """listen(fd, backlog): without a bind before it, an internet socket gets a port of the kernel's choice, which
        Landlock's BIND_TCP does not cover"""
        sock = target.take_fd(note.tid, int_of(note.args[0]))
        raw = calls.socket_option(sock, _SOL_SOCKET, _SO_DOMAIN)
        if raw in (AF_INET, AF_INET6) and not self._authority.snapshot.net_all:
            os.close(sock)
            return self._refuse(note, f"listen {_FAMILIES[raw]}", _REFUSED)
        try:
            return calls.call("listen", sock, int_of(note.args[1]))
        finally:
            os.close(sock)

    def _address(self, note: Note, address: int, length: int) -> bytes:
        length = int_of(length)
        if length < 0 or length > _ADDRESS_MAX:
            raise OSError(errno.EINVAL, "address length")
        if length < 2:
            raise OSError(errno.EINVAL, "address too short")
        return calls.read_memory(note.tid, address, length)

    def _plain(self, note: Note, fd: int, raw: bytes) -> Effect:
        """Do it at once on the target's socket: it waits for nobody."""
        sock = target.take_fd(note.tid, fd)
        try:
            return calls.call(note.name, sock, raw, len(raw))
        finally:
            os.close(sock)

    def _on_behalf(self, name: str, note: Note, fd: int, raw: bytes, what: str) -> Act:
        sock = target.take_fd(note.tid, fd)
        blocking = not fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK

        def perform() -> Effect:
            return calls.call(name, sock, raw, len(raw))

        # The access is one that net.all allows outright; it is recorded like any other.
        return Act(
            "connect", (), perform, (_Fd(sock),), path=what, rule=_UNMEDIATED,
            slow=blocking and name == "connect",
        )  # fmt: skip

    def _connect_unix(self, note: Note, fd: int, raw: bytes) -> Act | Effect:
        name = raw[2:]
        if not name or name[:1] == b"\0":
            what = "@" + os.fsdecode(name[1:]) if name else "(unnamed)"
            return self._refuse(note, "unix:" + what.replace("\0", "@"), _REFUSED_SOCKET)
        pin = self._resolver.pin(note.tid, calls.AT_FDCWD, name.split(b"\0", 1)[0])
        try:
            if not stat.S_ISSOCK(pin.mode):
                raise OSError(errno.ECONNREFUSED, "not a socket")
            rule = self._unix_rule(pin)
            if rule.verdict:
                return self._refuse(note, pin.path, rule)
            sock = target.take_fd(note.tid, fd)
        except BaseException:
            pin.close()
            raise
        there = b"\1\0/proc/self/fd/%d\0" % pin.fd

        def perform() -> Effect:
            return calls.call("connect", sock, there, len(there))

        return Act("connect", (), perform, (_Fd(sock), pin), path=pin.path, rule=rule, slow=True)

    def _unix_rule(self, pin: Pin) -> model.Rule:
        path = pin.path
        if path.startswith(self._tmpdir) or path == self._agent_socket:
            return _OWN_SOCKET
        if self._authority.owns(path):
            return _OWN_SOCKET
        if not self._authority.snapshot.net_all or path.startswith(_HELPERS):
            return _REFUSED_SOCKET
        if self._authority.decide("write", path).verdict == model.DENY:
            return _REFUSED_SOCKET  # remit's own places, and what the person denies
        return _UNMEDIATED

    def _bind_unix(self, note: Note, fd: int, raw: bytes) -> Act | Effect:
        name = raw[2:]
        if not name or name[:1] == b"\0":
            return self._plain(note, fd, raw)  # abstract: seen by the session alone (Landlock's scope)
        path = name.split(b"\0", 1)[0]
        place = self._resolver.place(note.tid, calls.AT_FDCWD, path)
        if place.stat() is not None:
            place.close()
            raise OSError(errno.EADDRINUSE, "exists")
        authority, real = self._authority, place.path
        if authority.static(WRITE, real):
            place.close()
            # Landlock stands behind the path (MAKE_SOCK) and behind ports, should the address change.
            return Act("create", (("create", real),), lambda: CONTINUE, note="socket")
        there = b"\1\0/proc/self/fd/%d/%s\0" % (place.parent.fd, place.name)
        if len(there) > 2 + _SUN_PATH:
            place.close()
            raise OSError(errno.ENAMETOOLONG, "socket name too long")
        try:
            sock = target.take_fd(note.tid, fd)
            umask = self._targets.process(note.tid).umask
        except BaseException:
            place.close()
            raise

        def perform() -> Effect:
            old = os.umask(umask)
            try:
                calls.call("bind", sock, there, len(there))
            finally:
                os.umask(old)
            if authority.in_shared(real):
                authority.own(place.parent.fd, place.name)
            return 0

        return Act("create", (("create", real),), perform, (place, _Fd(sock)), note="socket")


_OWN_SOCKET = model.Rule(
    model.PACK, model.ALLOW, "connect", "/**", source="built-in: the session's own sockets"
)


class _Fd:
    """A descriptor that an act holds."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        os.close(self.fd)


def _inet(raw: bytes) -> str:
    """Return an internet address for people; hosts and ports only, no names."""
    family = struct.unpack_from("<H", raw)[0]
    if family == AF_INET and len(raw) >= 8:
        return "tcp:%d.%d.%d.%d:%d" % (*raw[4:8], struct.unpack_from(">H", raw, 2)[0])  # noqa: UP031
    if family == AF_INET6 and len(raw) >= 24:
        groups = ":".join(f"{g:x}" for g in struct.unpack_from(">8H", raw, 8))
        return f"tcp:[{groups}]:{struct.unpack_from('>H', raw, 2)[0]}"
    return f"address family {family}"


class Others:
    """Calls that name a process by number: allowed within the session only. The number is a register."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    def on_pid(self, note: Note) -> Act | Effect:
        """prlimit64, sched_set*: the first argument names the process (0: oneself)"""
        return self._inside(int_of(note.args[0]))

    def on_which(self, note: Note) -> Act | Effect:
        """setpriority, ioprio_set: (which, who); groups and users reach beyond the session"""
        which = int_of(note.args[0])
        process_is = 0 if note.name == "setpriority" else 1  # PRIO_PROCESS, IOPRIO_WHO_PROCESS
        if which != process_is:
            raise OSError(errno.EPERM, "a group of processes")
        return self._inside(int_of(note.args[1]))

    def _inside(self, pid: int) -> Effect:
        if pid and not self._targets.inside(pid):
            raise OSError(errno.EPERM, "a process outside the session")
        return CONTINUE

    def umask(self, note: Note) -> Act | Effect:
        """umask(mask): what we create on behalf must have it"""
        self._targets.umask_changed(note.tid, note.args[0])
        return CONTINUE
