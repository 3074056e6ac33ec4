"""The supervisor's connection to remitd: asks go up; answers and snapshots come down.

A thread waits for what comes down and for the holds' ends; it does nothing else, and takes the session's lock for
what it does. When remitd goes away the session goes on under its snapshot, and the thread comes back with the same
session, and asks again what is still held.
"""

from __future__ import annotations

import _socket
import _thread
import os
import select
import time

from remit_daemon.wire import control, frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Session(Protocol):
        """What the connection needs of the session."""

        lock: _thread.LockType

        def hello(self) -> dict[str, Any]: ...
        def received(self, frame: dict[str, Any]) -> None: ...
        def held_frames(self) -> list[dict[str, Any]]: ...
        def expire(self, now: float) -> float | None: ...


_CHUNK = 1 << 16
_RETRY = 0.2  # seconds between attempts to reach a remitd that went away
_ANSWER_WITHIN = 20.0  # seconds for remitd's first answer


class Unreachable(Exception):
    """There is no remitd to talk to."""


class Refused(Exception):
    """remitd would not take the session; ``code`` is the exit status for it."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def connect(path: str) -> _socket.socket:
    """Return a connection to remitd's control socket. Raises Unreachable."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except OSError as e:
        sock.close()
        raise Unreachable(f"no remitd at {path}: {e.strerror}") from None
    return sock


class Upcall:
    """The connection and the thread that serves it."""

    def __init__(self, path: str, sock: _socket.socket) -> None:
        self._path = path
        self._sock: _socket.socket | None = sock
        self._reader = frames.Reader()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._out = b""  # what the socket would not take yet; only the session's lock holder touches it
        self._poked = False

    def open(self, hello: dict[str, Any]) -> dict[str, Any]:
        """Say ``hello`` and return remitd's ``welcome``. Raises Refused, Unreachable."""
        self.say(hello)
        return self.hear()

    def say(self, hello: dict[str, Any]) -> None:
        """Say ``hello``. Raises Unreachable."""
        assert self._sock is not None
        self._sock.settimeout(_ANSWER_WITHIN)
        try:
            self._sock.sendall(frames.encode(hello))
        except OSError as e:
            raise Unreachable(f"remitd does not listen: {e}") from None

    def hear(self) -> dict[str, Any]:
        """Return remitd's ``welcome``. Raises Refused, Unreachable."""
        assert self._sock is not None
        try:
            while True:
                data = self._sock.recv(_CHUNK)
                if not data:
                    raise Unreachable("remitd closed the connection")
                for frame in self._reader.feed(data):
                    kind = frame.get("type")
                    if kind == "welcome":
                        self._sock.settimeout(None)
                        return dict(frame)
                    if kind == "refused":
                        raise Refused(str(frame["error"]), int(frame["code"]))
                    raise Unreachable(f"remitd said {kind!r} in place of welcome")
        except (OSError, frames.FrameError) as e:
            raise Unreachable(f"remitd does not answer: {e}") from None

    def send(self, frame: dict[str, Any]) -> None:
        """Queue ``frame``, under the session's lock. Lost when remitd goes away: held asks are then said again."""
        if self._sock is not None:
            self._out += frames.encode(frame)
            self.wake()

    def poke(self) -> None:
        """Tell remitd that the journal has grown, under the session's lock."""
        if not self._poked:
            self._poked = True
            self.wake()

    def wake(self) -> None:
        """Make the thread look at the queue and at the holds' ends."""
        os.eventfd_write(self._wake, 1)

    def flush(self) -> None:
        """Send what is queued, waiting at most a second: the session ends."""
        if self._sock is not None:
            try:
                self._sock.settimeout(1.0)
                self._sock.sendall(self._out)
            except OSError:
                pass
            self._out = b""

    def serve(self, session: Session) -> None:
        """Run for ever, in a thread of its own."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while True:
            sock = self._sock
            if sock is None:
                self._again(session)
                continue
            with session.lock:
                due = session.expire(time.monotonic())
                lost = not self._push(sock)
                events = select.POLLIN | (select.POLLOUT if self._out else 0)
            poll.register(sock.fileno(), events)
            ready = [] if lost else poll.poll(None if due is None else max(1, int(due * 1000)))
            for fd, event in ready:
                if fd == self._wake:
                    os.eventfd_read(self._wake)
                elif event & ~select.POLLOUT:
                    lost = not self._receive(sock, session)
            if lost:
                poll.unregister(sock.fileno())
                with session.lock:
                    self._drop()

    def _push(self, sock: _socket.socket) -> bool:
        """Send what the socket takes; False when the connection is lost."""
        if self._poked:
            self._poked = False
            self._out += _POKE
        try:
            if self._out:
                self._out = self._out[sock.send(self._out, _socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = None
        self._out = b""
        self._reader = frames.Reader()

    def _receive(self, sock: _socket.socket, session: Session) -> bool:
        try:
            data = sock.recv(_CHUNK)
            if not data:
                return False
            for frame in self._reader.feed(data):
                if frame.get("type") not in control.DAEMON_THEN:
                    return False
                with session.lock:
                    session.received(frame)
        except (OSError, frames.FrameError, KeyError, AttributeError):
            return False
        return True

    def _again(self, session: Session) -> None:
        """Try once to take the session up again with a new remitd."""
        with session.lock:
            session.expire(time.monotonic())
            hello = session.hello()
        try:
            sock = connect(self._path)
        except Unreachable:
            time.sleep(_RETRY)
            return
        self._sock = sock
        try:
            welcome = self.open(hello)
        except (Unreachable, Refused):
            with session.lock:
                self._drop()
            time.sleep(_RETRY)
            return
        with session.lock:
            session.received({**welcome, "type": "snapshot"})
            for frame in session.held_frames():
                self.send(frame)


_POKE = frames.encode({"type": "poke"})
