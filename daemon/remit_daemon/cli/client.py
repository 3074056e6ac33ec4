"""Talking to remitd from the command line: JSON-RPC over a Unix socket, blocking, and starting the daemon.

Standard library only; nothing here is told about sessions or prompts.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import sys
import time
from typing import Any

from remit_daemon.wire.escape import escape
from remit_daemon.wire.paths import Paths, PathsError, find, make_private
from remit_daemon.wire.rpc import INVALID_PARAMS, MAX_LINE

OK, NEGATIVE, USAGE, NO_DAEMON = (
    0,
    1,
    2,
    3,
)  # exit statuses: the last three are a no, wrong use, nobody to ask
MAX_LAST = 4096  # bytes of the log's end that are looked at
START_WITHIN = 15.0  # seconds for a daemon to answer; a cold start takes well under one
ANSWER_WITHIN = 120.0  # seconds: the slowest call verifies a ledger of some million rows


class NoDaemon(Exception):
    """There is no remitd, or it does not answer."""


class RpcError(Exception):
    """remitd said no. ``code`` is the JSON-RPC error code, ``oauth`` OAuth's, where it is about a token."""

    def __init__(self, code: int, text: str, data: Any = None) -> None:
        super().__init__(text)
        self.code = code
        self.oauth = str(data.get("error", "")) if isinstance(data, dict) else ""


def failed(name: str, error: Exception, *, json_out: bool) -> int:
    """Say why the command ``name`` came to nothing; returns its exit status.

    With ``json_out`` also as ``{"error": {"message": ...}}`` on standard output, with the ``code`` of ``wire.rpc`` where remitd said it.
    """
    if json_out:
        code = {"code": error.code} if isinstance(error, RpcError) else {}
        oauth = {"error": error.oauth} if isinstance(error, RpcError) and error.oauth else {}
        print(json.dumps({"error": {**code, "message": str(error), **oauth}}))
    if isinstance(error, RpcError):
        sys.stderr.write(f"remit {name}: {escape(str(error))}\n")
        return USAGE if error.code == INVALID_PARAMS else NEGATIVE
    said_by = "remit" if isinstance(error, NoDaemon | PathsError) else f"remit {name}"
    sys.stderr.write(f"{said_by}: {error}\n")
    return NO_DAEMON if isinstance(error, NoDaemon) else USAGE


class Client:
    """One connection. ``heard`` are notifications that came while an answer was awaited."""

    def __init__(self, path: str) -> None:
        """Connect to the socket ``path``. Raises NoDaemon."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.connect(path)
        except OSError as e:
            self._sock.close()
            why = (e.strerror or str(e)).lower()
            raise NoDaemon(
                f"no remitd at {path} ({why}); `remit daemon` starts it, as the next `remit run` does"
            ) from None
        self._buffer = bytearray()
        self._ident = 0
        self.heard: list[dict[str, Any]] = []

    def fileno(self) -> int:
        """Return the socket's descriptor, for select."""
        return self._sock.fileno()

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Return the result of ``method``. Raises RpcError, NoDaemon."""
        self._ident += 1
        request = {"jsonrpc": "2.0", "id": self._ident, "method": method, "params": params or {}}
        try:
            self._sock.sendall(json.dumps(request).encode("ascii") + b"\n")
        except OSError:
            pass  # what was said before the connection closed may still be read
        while True:
            message = self._next(ANSWER_WITHIN)
            if message is None:
                raise NoDaemon("remitd does not answer")
            if "error" in message and message.get("id") in (None, self._ident):
                error = message["error"]
                raise RpcError(int(error["code"]), str(error["message"]), error.get("data"))
            if message.get("id") == self._ident:
                return message.get("result")
            if "method" in message:
                self.heard.append(message)

    def notification(self, timeout: float | None) -> dict[str, Any] | None:
        """Return the next notification, or None when none came within ``timeout`` seconds. Raises NoDaemon."""
        if self.heard:
            return self.heard.pop(0)
        return self._next(timeout)

    def _next(self, timeout: float | None) -> dict[str, Any] | None:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                try:
                    message = json.loads(line)
                except ValueError:
                    raise NoDaemon("what answers is not remitd") from None
                if isinstance(message, dict):
                    return message
                continue
            if len(self._buffer) > 16 * MAX_LINE:
                raise NoDaemon("what answers is not remitd")
            wait = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([self._sock], [], [], wait)[0]:
                return None
            try:
                data = self._sock.recv(1 << 16)
            except OSError as e:
                raise NoDaemon(f"remitd is gone ({e.strerror})") from None
            if not data:
                raise NoDaemon("remitd closed the connection")
            self._buffer += data

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


def approver(*, start: bool) -> Client:
    """Return a connection for the person; with ``start`` a daemon is started when none runs. Raises NoDaemon."""
    paths = find()
    try:
        return Client(paths.approver)
    except NoDaemon:
        if not start:
            raise
    start_daemon(paths)
    return Client(paths.approver)


def start_daemon(paths: Paths | None = None) -> None:
    """Start remitd in the background when none answers, and wait until it does. Raises NoDaemon."""
    paths = paths or find()
    if _answers(paths):
        return
    for place in (paths.state, paths.runtime):
        make_private(place)
    end = time.monotonic() + START_WITHIN
    # One that ends at once may have met another, which begins as well or is about to end: then we wait, or try once more.
    if not _wait(paths, end) and not _wait(paths, end):
        raise NoDaemon(f"remitd ended at once ({_last_words(paths.log)})")


def _wait(paths: Paths, end: float) -> bool:
    """Start a daemon and return whether one answers; False when ours has ended and there is no other. Raises NoDaemon after ``end``."""
    ended = _spawn(paths)
    try:
        while not _answers(paths):
            if time.monotonic() > end:
                raise NoDaemon(f"remitd does not answer; {paths.log} may say why")
            if select.select([ended], [], [], 0.01)[0]:
                if not _held(paths.lock):
                    return _answers(paths)
                time.sleep(0.01)
    finally:
        os.close(ended)
    return True


def _last_words(log: str) -> str:
    """Return the last line of ``log``, where the daemon says why it does not run."""
    try:
        with open(log, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - MAX_LAST))
            lines = f.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return escape(lines[-1].removeprefix("remitd: ")) if lines else f"{log} may say why"


def _spawn(paths: Paths) -> int:
    """Start a daemon; returns a descriptor that becomes readable when it has ended."""
    code, told = os.pipe()
    child = os.fork()
    if child == 0:
        _become_daemon(paths, code, told)
    os.close(told)
    os.waitpid(child, 0)
    return code


def _held(lock: str) -> bool:
    """Tell whether a daemon holds ``lock``."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _answers(paths: Paths) -> bool:
    try:
        Client(paths.approver).close()
    except NoDaemon:
        return False
    return True


def _become_daemon(paths: Paths, code: int, told: int) -> None:
    """Never return: fork once more, so that the daemon is nobody's child, and run it."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(code)
        os.set_inheritable(told, True)
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(paths.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        for number, fd in enumerate((null, log, log)):
            os.dup2(fd, number)
        env = dict(os.environ)
        here = [os.path.abspath(p) for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
        if here:
            env["PYTHONPATH"] = os.pathsep.join(here)
        os.chdir("/")
        os.execve(sys.executable, [sys.executable, "-m", "remit_daemon.runtime"], env)  # noqa: S606
    finally:
        os._exit(127)
