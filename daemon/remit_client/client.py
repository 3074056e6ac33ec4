"""Ask remit before acting, or have it act. Standard library only, and nothing of remit's own.

    from remit_client import Denied, Remit

    with Remit(agent="my-tool") as remit:
        try:
            fd = remit.open("/home/ann/notes.txt", "read", purpose="to summarise your notes")
        except Denied as no:
            print("may not:", no)
        if remit.request("connect", "api.example.org:443", purpose="to fetch the forecast"):
            ...

A program inside a session of remit's is known by the kernel's word; ``agent`` is then not its to say. Outside, what it is told is
honest bookkeeping: nothing holds the program to it. The wire, for other languages, is JSON-RPC 2.0 over a Unix socket:
``remit_daemon/wire/rpc.py``.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

DENIED, FAILED = (
    -32010,
    -32012,
)  # the JSON-RPC error codes of an act that must not happen, and of one that failed
MAX_LINE = 64 << 20  # bytes of one answer: a ledger's excerpt is some megabytes
_MAX_FDS = 4  # descriptors with one answer; remitd sends one


class RemitError(Exception):
    """remitd says no to the request itself. ``code`` is JSON-RPC's, ``data`` what it adds (may be None)."""

    def __init__(self, code: int, text: str, data: Any = None) -> None:
        super().__init__(text)
        self.code = code
        self.data = data


class Denied(RemitError):
    """Policy or the person says no, or has not answered yet. ``data`` says what was refused, and by which rule."""

    @property
    def undecided(self) -> bool:
        """Whether nobody has said no: the question is still open, and trying again later may do."""
        return isinstance(self.data, dict) and self.data.get("verdict") == "ask"


class AppError(RemitError):
    """The call was allowed, and what was called fails it, or does not answer. ``data["error"]`` is the D-Bus error's name."""


class NoDaemon(Exception):
    """There is no remitd, or it has gone."""


_ERRORS: dict[int, type[RemitError]] = {DENIED: Denied, FAILED: AppError}


class Told(NamedTuple):
    """What was said: ``verdict`` is allow, deny or ask (nobody has decided). True when it is allow."""

    verdict: str
    rule: str
    prompt: str = ""
    message: str = ""

    def __bool__(self) -> bool:
        return self.verdict == "allow"


def address(environ: Mapping[str, str] | None = None) -> str:
    """Return where agent.sock is: ``REMIT_SOCKET`` (set inside a session), else where the XDG directories say."""
    env = os.environ if environ is None else environ
    if env.get("REMIT_SOCKET"):
        return env["REMIT_SOCKET"]
    runtime = env.get("XDG_RUNTIME_DIR", "")
    if not runtime.startswith("/") or not os.path.isdir(runtime):
        runtime = f"/run/user/{os.getuid()}"
    if os.access(runtime, os.W_OK | os.X_OK):
        return runtime + "/remit/agent.sock"
    state = env.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        state = os.path.expanduser("~") + "/.local/state"
    return state + "/remit/run/agent.sock"


class Remit:
    """One connection, which makes one request at a time; for several threads, one each.

    ``agent`` and ``project`` (a directory) say who is asking and where it works, for a program outside a session; ``pid`` makes that
    an ancestor's session (a helper that speaks for the agent that started it). ``wait`` of each verb is how many seconds a person's
    answer is waited for (None: the policy's own).
    """

    def __init__(self, path: str = "", *, agent: str = "", project: str = "", pid: int = 0) -> None:
        """Connect. Raises NoDaemon, RemitError."""
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._ident = 0
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.connect(path or address())
        except OSError as e:
            self._sock.close()
            raise NoDaemon(f"no remitd at {path or address()}: {e.strerror}") from None
        if agent or project or pid:
            said = {"agent": agent, "project": project, "pid": pid}
            try:
                self.call("hello", {k: v for k, v in said.items() if v})
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Remit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()
        self._drop()

    def fileno(self) -> int:
        """Return the connection's descriptor."""
        return self._sock.fileno()

    # -- the verbs ---------------------------------------------------------------------------------

    def whoami(self) -> dict[str, Any]:
        """Return {session, agent, project, confined, assurance, state} as remitd knows this process."""
        return dict(self.call("whoami"))

    def check(self, op: str, resource: str, *, argv: Sequence[str] = ()) -> Told:
        """Return what would be said of ``op`` on ``resource``; nobody is asked. Raises RemitError, NoDaemon."""
        found = self.call("check", {"op": op, "resource": resource, "argv": list(argv)})
        return Told(found["verdict"], found["rule"])

    def request(
        self,
        op: str,
        resource: str,
        *,
        argv: Sequence[str] = (),
        purpose: str = "",
        wait: int | None = None,
    ) -> Told:
        """Ask for permission before acting; a person may be asked. Raises RemitError, NoDaemon."""
        params = _with_wait({"op": op, "resource": resource, "argv": list(argv), "purpose": purpose}, wait)
        found = self.call("request", params)
        return Told(found["verdict"], found["rule"], found["prompt"], found["message"])

    def intend(self, purpose: str, resources: Sequence[str] = ()) -> None:
        """Say why the next acts on ``resources`` (none: all) are done; the person reads it when asked. Raises RemitError, NoDaemon."""
        self.call("intend", {"purpose": purpose, "resources": list(resources)})

    def open(self, path: str, mode: str = "read", *, purpose: str = "", wait: int | None = None) -> int:
        """Return a descriptor of the file ``path``, yours to close. ``mode`` is read, write, readwrite or create.

        Raises Denied, RemitError, NoDaemon.
        """
        params = _with_wait({"path": os.path.abspath(path), "mode": mode, "purpose": purpose}, wait)
        return self._one_fd("open", params)

    def connect(self, host: str, port: int, *, purpose: str = "", wait: int | None = None) -> socket.socket:
        """Return a connected TCP socket. Not inside a session, where one connects as usual. Raises Denied, RemitError, NoDaemon."""
        params = _with_wait({"host": host, "port": port, "purpose": purpose}, wait)
        return socket.socket(fileno=self._one_fd("connect", params))

    def call_app(
        self, name: str, path: str, interface: str, member: str, signature: str = "", args: Sequence[Any] = (), *,
        start: bool = False, purpose: str = "", wait: int | None = None,
    ) -> list[Any]:  # fmt: skip
        """Return what a method of the program ``name`` on the session bus returns, as JSON has it.

        ``args`` fit the D-Bus ``signature``; a variant is ``{"signature": …, "value": …}``. Raises Denied, AppError, RemitError, NoDaemon.
        """
        params = {
            "name": name, "path": path, "interface": interface, "member": member, "signature": signature, "args": list(args),
            "start": start, "purpose": purpose,
        }  # fmt: skip
        return list(self.call("call", _with_wait(params, wait))["args"])

    def denials(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return what was refused to this session, the oldest first."""
        return list(self.call("denials", {"limit": limit}))

    def introspect(self, token: str) -> dict[str, Any]:
        """Return RFC 7662's answer about ``token``: inside a session of one of its own, outside of any."""
        return dict(self.call("token.introspect", {"token": token}))

    # -- the wire ----------------------------------------------------------------------------------

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Return the result of any method of agent.sock. Raises Denied, RemitError, NoDaemon."""
        try:
            return self._exchange(method, params or {})
        finally:
            self._drop()  # descriptors that nobody asked for

    def _one_fd(self, method: str, params: dict[str, Any]) -> int:
        try:
            self._exchange(method, params)
            if len(self._fds) != 1:
                raise NoDaemon("what answers is not remitd: an answer without its descriptor")
            return self._fds.pop()
        finally:
            self._drop()

    def _exchange(self, method: str, params: dict[str, Any]) -> Any:
        self._ident += 1
        request = {"jsonrpc": "2.0", "id": self._ident, "method": method, "params": params}
        try:
            self._sock.sendall(json.dumps(request).encode("ascii") + b"\n")
        except OSError:
            pass  # what was said before the connection closed may still be read
        while True:
            answer = self._line()
            if answer.get("id") not in (None, self._ident):
                continue
            error = answer.get("error")
            if error is not None:
                kind = _ERRORS.get(error["code"], RemitError)
                raise kind(int(error["code"]), str(error["message"]), error.get("data"))
            if answer.get("id") == self._ident:
                return answer.get("result")

    def _line(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_LINE:
                raise NoDaemon("what answers is not remitd: a line without an end")
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    1 << 16, socket.CMSG_SPACE(4 * _MAX_FDS), socket.MSG_CMSG_CLOEXEC
                )
            except OSError as e:
                raise NoDaemon(f"remitd is gone: {e.strerror}") from None
            for level, kind, raw in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    self._fds += array.array("i", raw[: len(raw) // 4 * 4])
            if not data:
                raise NoDaemon("remitd closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            found = json.loads(line)
        except ValueError:
            raise NoDaemon("what answers is not remitd") from None
        if not isinstance(found, dict):
            raise NoDaemon("what answers is not remitd")
        return found

    def _drop(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def _with_wait(params: dict[str, Any], wait: int | None) -> dict[str, Any]:
    return params if wait is None else {**params, "wait": wait}
