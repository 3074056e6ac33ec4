"""sendto, sendmsg and sendmmsg, done on behalf.

A message names its destination in memory, and its socket by a number that another thread can give to something else: what
is sent where can only be known by taking the socket, reading the message once, and sending it ourselves. Descriptors that
go along are taken the same way; credentials are left out, so that a receiver is told of us, never of somebody else.
A send that would wait does so beside the loop.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct

from remit_daemon.kernel import calls
from remit_daemon.supervisor import target
from remit_daemon.supervisor.act import Act
from remit_daemon.supervisor.opens import int_of
from remit_policy import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.supervisor.act import Effect, Note

MSG_DONTWAIT, MSG_NOSIGNAL = 0x40, 0x4000
MSG_ZEROCOPY = 0x4000000  # sends later what the memory holds then: ours
SOL_SOCKET, SO_TYPE, SO_DOMAIN = 1, 3, 39  # <asm-generic/socket.h>
STREAM, DGRAM = 1, 2
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SIGPIPE = 13
_HEADER = struct.Struct("QI4xQQQQi4x")
_MMSG = 64  # sizeof(struct mmsghdr): the header, then the count of bytes sent
_MAX_ADDRESS = 128  # sizeof(struct sockaddr_storage)
_MAX_PARTS = 1024  # UIO_MAXIOV
_MAX_MESSAGES = 1024  # of one sendmmsg(2), as the kernel's own limit
_MAX_CONTROL = 1 << 16  # bytes; 253 descriptors need about a kilobyte
_MAX_FDS = (
    253  # SCM_MAX_FD; of several messages that are sent at once together, since each takes us some time
)
_CHUNK = 1 << 20  # bytes of a stream that are copied at once
_MAX_DATAGRAM = 1 << 20  # bytes; the kernel's default send buffer holds a fifth of it
_FREE = model.Rule(model.PACK, model.ALLOW, "connect", "/**", source="built-in: to where it is connected")


class Message:
    """One message as the target wrote it: ``name`` the destination or b"", ``parts`` (address, size), ``fds`` numbers."""

    __slots__ = ("fds", "flags", "name", "parts", "sent_at")

    def __init__(
        self, name: bytes, parts: list[tuple[int, int]], fds: list[int], flags: int, sent_at: int = 0
    ) -> None:
        self.name = name
        self.parts = parts
        self.fds = fds
        self.flags = flags
        self.sent_at = sent_at  # where the target wants the count of bytes (sendmmsg)

    @property
    def size(self) -> int:
        return sum(size for _, size in self.parts)


def address(tid: int, pointer: int, length: int) -> bytes:
    """Return the socket address at ``pointer``. Raises OSError (EINVAL, EFAULT)."""
    length = int_of(length)
    if length < 0 or length > _MAX_ADDRESS:
        raise OSError(errno.EINVAL, "address length")
    if length < 2:
        raise OSError(errno.EINVAL, "address too short")
    return calls.read_memory(tid, pointer, length)


def of_sendto(note: Note) -> Message:
    """Return the message of sendto(fd, buffer, size, flags, address, length)."""
    a = note.args
    return Message(address(note.tid, a[4], a[5]) if a[4] else b"", [(a[1], a[2])], [], int_of(a[3]))


def of_header(tid: int, pointer: int, flags: int) -> Message:
    """Return the message of a ``struct msghdr`` at ``pointer``. Raises OSError."""
    name, length, iov, count, control, room, _ = _HEADER.unpack(
        calls.read_memory(tid, pointer, _HEADER.size)
    )
    if count > _MAX_PARTS:
        raise OSError(errno.EMSGSIZE, "too many parts")
    if room > _MAX_CONTROL:
        raise OSError(errno.ENOBUFS, "too much control data")
    parts = list(struct.iter_unpack("QQ", calls.read_memory(tid, iov, 16 * count))) if count else []
    where = address(tid, name, length) if name and length else b""
    fds = _rights(calls.read_memory(tid, control, room)) if control and room else []
    return Message(where, parts, fds, flags)


def of_headers(note: Note) -> list[Message]:
    """Return the messages of sendmmsg(fd, messages, count, flags). Raises OSError."""
    a = note.args
    found = []
    for at in range(min(a[2] & 0xFFFFFFFF, _MAX_MESSAGES)):
        header = a[1] + at * _MMSG
        message = of_header(note.tid, header, int_of(a[3]))
        message.sent_at = header + _HEADER.size
        found.append(message)
    return found


def _rights(raw: bytes) -> list[int]:
    """Return the descriptors of SCM_RIGHTS in control data (cmsg(3)); other kinds are left out."""
    found: list[int] = []
    at = 0
    while at + 16 <= len(raw):
        size, level, kind = struct.unpack_from("QII", raw, at)
        if size < 16 or at + size > len(raw):
            raise OSError(errno.EINVAL, "malformed control data")
        if level == SOL_SOCKET and kind == 1:
            found += [n for (n,) in struct.iter_unpack("i", raw[at + 16 : at + 16 + (size - 16) // 4 * 4])]
        elif level != SOL_SOCKET:
            raise OSError(errno.EINVAL, "control data that would change where a message goes")
        at += (size + 7) & ~7
    if len(found) > _MAX_FDS:
        raise OSError(errno.EINVAL, "too many descriptors")
    return found


class Sending:
    """A socket of the target with the messages that are to go, as a thing that an act holds."""

    def __init__(self, note: Note, fd: int, messages: list[Message]) -> None:
        """Take the socket and the descriptors. Raises OSError (EBADF)."""
        self.note = note
        self.messages = messages
        self.sock = target.take_fd(note.tid, fd)
        self.taken: list[list[int]] = []
        try:
            self.kind = calls.socket_option(self.sock, SOL_SOCKET, SO_TYPE)
            self.domain = calls.socket_option(self.sock, SOL_SOCKET, SO_DOMAIN)
            if sum(len(message.fds) for message in messages) > _MAX_FDS:
                raise OSError(errno.ETOOMANYREFS, "too many descriptors at once")
            for message in messages:
                mine: list[int] = []
                self.taken.append(mine)
                for number in message.fds:
                    mine.append(target.take_fd(note.tid, number))
        except BaseException:
            self.close()
            raise
        blocking = not fcntl.fcntl(self.sock, fcntl.F_GETFL) & os.O_NONBLOCK
        self.waits = blocking and not any(m.flags & MSG_DONTWAIT for m in messages)

    def close(self) -> None:
        """Let go of the socket and of the descriptors; only the first call counts."""
        if self.sock < 0:
            return
        target.let_go(self.sock)
        self.sock = -1
        for fds in self.taken:
            for fd in fds:
                target.let_go(fd)
        self.taken = []

    def send(self, names: list[bytes], still: Callable[[], bool] | None) -> int:
        """Send all, to ``names`` in place of what the messages say; returns what the call returns.

        Without ``still`` nothing is waited for (EAGAIN); with it as long as ``still`` is true. Raises OSError.
        """
        done = 0
        for message, fds, name in zip(self.messages, self.taken, names, strict=True):
            try:
                sent = self._one(message, fds, name, still)
            except OSError:
                if done:
                    return done
                raise
            if not message.sent_at:
                return sent
            calls.write_memory(self.note.tid, message.sent_at, struct.pack("I", sent))
            done += 1
        return done

    def _one(self, message: Message, fds: list[int], name: bytes, still: Callable[[], bool] | None) -> int:
        total = message.size
        if message.flags & MSG_ZEROCOPY:
            raise OSError(errno.ENOBUFS, "copied by all means")  # what callers of it fall back from
        if self.kind != STREAM and total > _MAX_DATAGRAM:
            raise OSError(errno.EMSGSIZE, "datagram too large")
        sent = 0
        while True:
            data = self._read(message, sent, _CHUNK if self.kind == STREAM else total)
            if still is not None and not still():
                raise OSError(errno.EINTR, "the target is gone")  # the memory may have been another's
            try:
                flags = message.flags & ~MSG_DONTWAIT | MSG_DONTWAIT | MSG_NOSIGNAL
                sent += calls.send_message(self.sock, name, data, fds if not sent else [], flags)
            except OSError as e:
                if e.errno == errno.EAGAIN and still is not None:
                    self._wait(still)
                    continue
                if sent:
                    if self.waits and still is None and not message.sent_at:
                        raise _More(sent) from None
                    return sent
                if e.errno == errno.EPIPE and self.kind == STREAM and not message.flags & MSG_NOSIGNAL:
                    _signal_pipe(self.note.tid)
                raise
            if sent >= total or self.kind != STREAM:
                return sent
            if still is None:
                if not self.waits or message.sent_at:
                    return sent
                raise _More(sent)

    def _read(self, message: Message, skip: int, room: int) -> bytes:
        out = []
        for pointer, size in message.parts:
            if skip >= size:
                skip -= size
                continue
            take = min(size - skip, room)
            if take:
                out.append(calls.read_memory(self.note.tid, pointer + skip, take))
            room -= take
            skip = 0
            if not room:
                break
        return b"".join(out)

    def _wait(self, still: Callable[[], bool]) -> None:
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        while not poll.poll(1000):
            if not still():
                raise OSError(errno.EINTR, "the target is gone")


class _More(OSError):
    """A blocking send that has begun: the rest is sent beside the loop."""

    def __init__(self, sent: int) -> None:
        super().__init__(errno.EAGAIN, "more to send")
        self.sent = sent


def _signal_pipe(tid: int) -> None:
    try:
        with open(f"/proc/{tid}/status", "rb") as f:
            tgid = next(int(line[5:]) for line in f if line.startswith(b"Tgid:"))
        calls.call("tgkill", tgid, tid, SIGPIPE)
    except (OSError, StopIteration):
        pass


def act(
    sending: Sending,
    names: list[bytes],
    listener: Callable[[], int],
    what: str,
    rule: model.Rule | None = None,
) -> Act | Effect:
    """Return the act of sending, done at once where nothing has to be waited for. ``rule``: what allowed a destination.

    ``listener`` gives the session's listener. Raises OSError; ``sending`` is then the caller's to close.
    """
    note = sending.note
    try:
        effect = sending.send(names, None)
    except _More as e:
        first = sending.messages[0]
        first.parts = _rest(first.parts, e.sent)
        begun = e.sent
    except OSError as e:
        if e.errno != errno.EAGAIN or not sending.waits:
            raise
        begun = 0
    else:
        sending.close()
        return effect

    def perform() -> Effect:
        if begun:
            for fds in sending.taken[:1]:
                for fd in fds:
                    target.let_go(fd)
                fds.clear()
        return begun + sending.send(names, lambda: calls.id_valid(listener(), note.id))

    return Act("connect", (), perform, (sending,), path=what, rule=rule or _FREE, slow=True, silent=True)


def _rest(parts: list[tuple[int, int]], sent: int) -> list[tuple[int, int]]:
    out = []
    for pointer, size in parts:
        if sent >= size:
            sent -= size
            continue
        out.append((pointer + sent, size - sent))
        sent = 0
    return out
