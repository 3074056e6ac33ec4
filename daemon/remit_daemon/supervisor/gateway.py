"""The supervisor's end of the link to its gateway (``wire.gateway``).

The gateway is started when something needs it, and again after it died. Whoever asks it waits in a thread of its own (see
``Session._work``), without the session's lock; one more thread reads the answers. A gateway that is not there
refuses: no connection is ever made past it.
"""

from __future__ import annotations

import _socket
import _thread
import errno
import os
import sys

from remit_daemon.wire import frames, gateway

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any

    from remit_daemon.supervisor.listeners import Listeners
    from remit_daemon.supervisor.target import Process
    from remit_daemon.wire.paths import Paths
else:
    import _signal as signal

_READY_WITHIN = (
    30.0  # seconds in which the gateway must answer the hello: it starts Python on a busy machine
)
_CHUNK = 1 << 16
_MAX_WAITING = 4096  # requests without an answer; more are refused


class Gateway:
    """The gateway of one session; ``hello`` returns what a new one is told."""

    def __init__(
        self,
        here: Paths,
        session: str,
        listeners: Listeners,
        env: dict[str, str],
        hello: Callable[[], dict[str, Any]],
    ) -> None:
        self.listeners = listeners
        self.private = f"{here.runtime}/gw-{session}"
        self.placeholders: dict[str, str] = {}
        self.pid = 0
        self._spool = f"{here.spool}/{session}"
        self._env = env
        self._hello = hello
        self._runs = 0
        self._sock: _socket.socket | None = None
        self._starting = _thread.allocate_lock()
        self._sending = _thread.allocate_lock()
        self._next = 0
        self._waiting: dict[int, _Wait] = {}

    # -- its life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the gateway if it does not run. Raises OSError (ENETUNREACH) when it cannot."""
        with self._starting:
            if self._sock is not None:
                return
            self._runs += 1
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            try:
                os.makedirs(self.private, 0o700, exist_ok=True)
                self.pid = self._spawn(theirs.fileno())
                theirs.close()
                ours.settimeout(_READY_WITHIN)
                hello = {
                    "type": "hello",
                    "version": gateway.VERSION,
                    "spool": os.path.dirname(self._spool),
                    "journal": f"{self._spool}.g{self._runs}.journal",
                    "private": self.private,
                    "listeners": list(self.listeners.sockets),
                    **self._hello(),
                }
                ours.sendall(frames.encode(hello))
                reader = frames.Reader()
                self._ready(ours, reader)
            except (OSError, frames.FrameError, KeyError) as e:
                ours.close()
                raise OSError(errno.ENETUNREACH, f"the gateway does not start: {e}") from None
            ours.settimeout(None)
            try:
                _thread.start_new_thread(self._read, (ours, reader))
            except RuntimeError:
                ours.close()
                raise OSError(errno.ENETUNREACH, "no thread can be had for the gateway") from None
            self._sock = ours

    def _spawn(self, link: int) -> int:
        fds = [link, *self.listeners.fds()]
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            # To high numbers first, so that none is overwritten before it is copied.
            high = [os.dup(fd) for fd in fds]
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1):
                os.dup2(null, number)
            top = max(high) + 1
            moved = [os.dup2(fd, top + i) for i, fd in enumerate(high)]
            for at, fd in enumerate(moved):
                os.dup2(fd, 3 + at)
            os.closerange(3 + len(fds), 1 << 16)
            os.chdir("/")
            env = dict(self._env)
            env["PYTHONPATH"] = os.pathsep.join(
                os.path.abspath(p) for p in env.get("PYTHONPATH", "").split(os.pathsep) if p
            )
            argv = [sys.executable, "-m", "remit_daemon.gateway", "--fd", *map(str, range(3, 3 + len(fds)))]
            os.execve(sys.executable, argv, env)  # noqa: S606 - our own interpreter and module
        finally:
            os._exit(127)

    def _ready(self, sock: _socket.socket, reader: frames.Reader) -> None:
        while True:
            data = sock.recv(_CHUNK)
            if not data:
                raise OSError(errno.ENETUNREACH, "it ended at once")
            for frame in reader.feed(data):
                if frame.get("type") not in gateway.GATEWAY_FIRST:
                    raise OSError(errno.ENETUNREACH, f"it said {frame.get('type')!r}")
                self.placeholders = {str(k): str(v) for k, v in frame["placeholders"].items()}
                return

    def _read(self, sock: _socket.socket, reader: frames.Reader) -> None:
        try:
            while data := sock.recv(_CHUNK):
                for frame in reader.feed(data):
                    if frame.get("type") in gateway.GATEWAY_THEN and isinstance(frame.get("id"), int):
                        self._answered(frame["id"], frame)
        except (OSError, frames.FrameError, AttributeError):
            pass
        with self._starting:
            if self._sock is sock:
                self._sock = None
        sock.close()
        for id, wait in list(self._waiting.items()):
            if wait.sock is sock:
                self._answered(id, None)

    def close(self) -> None:
        """End the gateway: it ends when its link does."""
        sock = self._sock
        if sock is not None:
            try:
                sock.shutdown(_socket.SHUT_RDWR)
            except OSError:
                pass
        try:
            for name in os.listdir(self.private):
                os.unlink(f"{self.private}/{name}")
            os.rmdir(self.private)
        except OSError:
            pass

    # -- asking ------------------------------------------------------------------------------------

    def say(self, kind: str, process: Process | None, exe: str, comm: str, **fields: Any) -> None:
        """Send a frame that has no answer. Raises OSError when there is no gateway."""
        self.start()
        frame = {"type": kind, **fields}
        if process is not None:
            frame.update(pid=process.tgid, proc=process.inode, exe=exe, comm=comm)
        self._send(frame)

    def ask(
        self, kind: str, process: Process, exe: str, comm: str, gone: Callable[[], bool], **fields: Any
    ) -> tuple[int, dict[str, Any]]:
        """Send a request and wait for its answer; returns its id and the answer.

        ``gone`` is asked every second whether nobody waits any more: the gateway is then told, and OSError (ECANCELED) raised.
        Raises OSError (ENETUNREACH) when there is no gateway, or it died.
        """
        self.start()
        if len(self._waiting) >= _MAX_WAITING:
            raise OSError(errno.EAGAIN, "too many requests wait for the gateway")
        wait = _Wait(self._sock)
        with self._sending:
            self._next += 1
            id = self._next
        self._waiting[id] = wait
        try:
            self._send(
                {
                    "type": kind, "id": id, "pid": process.tgid, "proc": process.inode, "exe": exe, "comm": comm,
                    "argv": [], **fields,
                }
            )  # fmt: skip
            while not wait.lock.acquire(timeout=1.0):
                if gone():
                    self._send({"type": "gone", "id": id})
                    raise OSError(errno.ECANCELED, "nobody waits for it")
        finally:
            self._waiting.pop(id, None)
        if wait.answer is None:
            raise OSError(errno.ENETUNREACH, "the gateway died")
        return id, wait.answer

    def _send(self, frame: dict[str, Any]) -> None:
        sock = self._sock
        if sock is None:
            raise OSError(errno.ENETUNREACH, "no gateway")
        with self._sending:
            sock.sendall(frames.encode(frame))

    def _answered(self, id: int, answer: dict[str, Any] | None) -> None:
        wait = self._waiting.pop(id, None)
        if wait is not None:
            wait.answer = answer
            wait.lock.release()


class _Wait:
    """One request without its answer: the lock is free when it has come."""

    __slots__ = ("answer", "lock", "sock")

    def __init__(self, sock: _socket.socket | None) -> None:
        self.sock = sock
        self.lock = _thread.allocate_lock()
        self.lock.acquire()
        self.answer: dict[str, Any] | None = None
