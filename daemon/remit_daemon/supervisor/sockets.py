"""Socket calls, sent to where they are decided by the family of address or socket; and the calls that reach other
processes by number.

Each is done by us on a duplicate of the target's socket (``inet``, ``unix``, ``messages``); nothing here is let go on.
"""

from __future__ import annotations

import errno

from remit_daemon.kernel import calls
from remit_daemon.supervisor import messages, target
from remit_daemon.supervisor.act import CONTINUE, Act
from remit_daemon.supervisor.opens import int_of
from remit_daemon.wire.control import CLAIM
from remit_policy import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.supervisor.act import Effect, Note
    from remit_daemon.supervisor.inet import Inet
    from remit_daemon.supervisor.record import Journal
    from remit_daemon.supervisor.target import Targets
    from remit_daemon.supervisor.unix import Unix

AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 0, 1, 2, 10, 16
_KINDS = {1: "stream", 2: "datagram", 3: "raw", 5: "seqpacket"}
_FAMILIES = {AF_UNIX: "unix", AF_INET: "inet", AF_INET6: "inet6"}
_REFUSED = model.Rule(
    model.PACK, model.DENY, "connect", "/**", source="built-in: a kind of socket that nothing mediates"
)
_SOCKETS = frozenset((AF_INET, AF_INET6))


class Sockets:
    """The handlers of socket calls."""

    def __init__(
        self,
        inet: Inet,
        unix: Unix,
        targets: Targets,
        journal: Journal,
        claim: Callable[[Note, bytes], Effect],
    ) -> None:
        """``claim`` serves who connects to the name of a ticket (``subs``)."""
        self._claim = claim
        self._inet = inet
        self._unix = unix
        self._targets = targets
        self._journal = journal

    def socket(self, note: Note) -> Act | Effect:
        """socket(family, type, protocol), of the kinds that the filter does not allow by itself"""
        family, kind = note.args[0] & 0xFFFFFFFF, note.args[1] & 0xF
        what = f"socket {_FAMILIES.get(family, family)} {_KINDS.get(kind, kind)}"
        self._journal.act(
            "connect", "deny", "refused", self._targets.process(note.tid), what, rule=_REFUSED.source
        )
        raise OSError(errno.EACCES, what)

    def connect(self, note: Note) -> Act | Effect:
        """connect(fd, address, length)"""
        a = note.args
        raw = messages.address(note.tid, a[1], a[2])
        family, fd = raw[0] | raw[1] << 8, int_of(a[0])
        if family == AF_UNIX:
            if raw.startswith(CLAIM, 2):
                return self._claim(note, raw[2 + len(CLAIM) :])
            return self._unix.connect(note, fd, raw)
        if family in _SOCKETS:
            return self._inet.connect(note, fd, raw)
        return self._plain(note, fd, raw)

    def bind(self, note: Note) -> Act | Effect:
        """bind(fd, address, length)"""
        a = note.args
        raw = messages.address(note.tid, a[1], a[2])
        family, fd = raw[0] | raw[1] << 8, int_of(a[0])
        if family == AF_UNIX:
            return self._unix.bind(note, fd, raw)
        if family in _SOCKETS:
            return self._inet.bind(note, fd, raw)
        return self._plain(note, fd, raw)

    def _plain(self, note: Note, fd: int, raw: bytes) -> Effect:
        """Do it at once: netlink, and AF_UNSPEC, which only disconnects (bind takes it for AF_INET's any address)."""
        sock = target.take_fd(note.tid, fd)
        try:
            domain = calls.socket_option(sock, messages.SOL_SOCKET, messages.SO_DOMAIN)
            if note.name == "bind" and domain != AF_NETLINK:
                raise OSError(errno.EAFNOSUPPORT, "an address of another family")
            return calls.call(note.name, sock, raw, len(raw))
        finally:
            target.let_go(sock)

    def listen(self, note: Note) -> Act | Effect:
        """listen(fd, backlog): without a bind before it, an internet socket gets a port of the kernel's choice, which
        Landlock's BIND_TCP does not cover"""
        sock, backlog = target.take_fd(note.tid, int_of(note.args[0])), int_of(note.args[1])
        try:
            inet = calls.socket_option(sock, messages.SOL_SOCKET, messages.SO_DOMAIN) in _SOCKETS
        except BaseException:
            target.let_go(sock)
            raise
        if inet:
            return self._inet.listen(note, sock, backlog)
        try:
            return calls.call("listen", sock, backlog)
        finally:
            target.let_go(sock)

    def sendto(self, note: Note) -> Act | Effect:
        """sendto(fd, buffer, size, flags, address, length) with an address"""
        return self._send(note, [messages.of_sendto(note)])

    def sendmsg(self, note: Note) -> Act | Effect:
        """sendmsg(fd, message, flags)"""
        a = note.args
        return self._send(note, [messages.of_header(note.tid, a[1], int_of(a[2]))])

    def sendmmsg(self, note: Note) -> Act | Effect:
        """sendmmsg(fd, messages, count, flags)"""
        return self._send(note, messages.of_headers(note))

    def _send(self, note: Note, found: list[messages.Message]) -> Act | Effect:
        sending = messages.Sending(note, int_of(note.args[0]), found)
        try:
            if sending.domain in _SOCKETS:
                return self._inet.send(sending)
            if sending.domain == AF_UNIX:
                return self._unix.send(sending)
            return messages.act(sending, [m.name for m in found], self._inet.listener, "send")
        except BaseException:
            sending.close()
            raise


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
