"""remitd: take the lock, open what is kept, listen, run until told to stop.

One daemon a user: the lock file in the runtime directory is held for life. Sessions outlive the daemon; they come back to the
next one by themselves.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from remit_daemon.gateway.http.ca import ensure
from remit_daemon.ledger.store import Ledger, LedgerError
from remit_daemon.peers.process import PeerError, inside_session, peer_of
from remit_daemon.runtime.approver import VERSION, Approver, agent_methods
from remit_daemon.runtime.control import Control
from remit_daemon.runtime.daemon import Daemon
from remit_daemon.runtime.lines import Lines, linger
from remit_daemon.runtime.policies import Policies, policy_dirs
from remit_daemon.runtime.store import Memory, StoreError
from remit_daemon.wire.paths import Paths, PathsError, find, make_private
from remit_daemon.wire.rpc import MAX_LINE, REFUSED

log = logging.getLogger("remitd")

LOCK = "remitd.lock"
BACKLOG = 64
MAX_PEERS = 64  # connections of one socket at a time
USAGE = "usage: remitd\n\nRuns the daemon in the foreground until SIGTERM or SIGINT. It takes no options.\n"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class CannotRun(Exception):
    """remitd cannot run; the text says why."""


def take_lock(runtime: str) -> int:
    """Lock the runtime directory for this daemon and return the descriptor that holds the lock. Raises CannotRun."""
    fd = os.open(f"{runtime}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise CannotRun(f"remitd runs already (process {held or 'unknown'})") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def _listen(path: str) -> socket.socket:
    try:
        os.unlink(path)  # we hold the lock: a socket found here is a dead daemon's
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    old = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError as e:
        sock.close()
        raise CannotRun(f"cannot listen on {path}: {e.strerror or e}") from None
    finally:
        os.umask(old)
    sock.listen(BACKLOG)
    return sock


async def _serve_control(
    daemon: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await Control(daemon, reader, writer).serve()


async def _serve_approver(
    daemon: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        peer = peer_of(writer.get_extra_info("socket"))
    except PeerError as e:
        log.warning("approver: refused: %s", e)
        return
    daemon.lanes.person()
    try:
        if inside_session(peer.pid, daemon.supervisors()):
            log.warning("approver: refused: process %d is inside a session", peer.pid)
            await _say_refused(reader, writer, "programs inside a session may not use this socket")
            return
        await Approver(daemon, peer, reader, writer).serve()
        await linger(reader, writer)
    finally:
        peer.close()


async def _serve_agent(daemon: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        peer = peer_of(writer.get_extra_info("socket"))
    except PeerError as e:
        log.warning("agent: refused: %s", e)
        return
    try:
        session = daemon.by_peer(peer.pid)
        if session is None:
            await _say_refused(reader, writer, "this socket is for programs inside a session")
            return
        methods = agent_methods(daemon, session.id)
        await Lines(reader, writer, methods, peer.alive, lane=daemon.lanes.agents).serve()
    finally:
        peer.close()


async def _say_refused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> None:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": REFUSED, "message": text}}
    Lines(reader, writer, {}, lambda: True).write(error)
    await linger(reader, writer)


class _Servers:
    """The listening sockets and their connections."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, path: str, serve: Callable[..., Coroutine[Any, Any, None]]) -> None:
        count = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            if count >= MAX_PEERS:
                log.warning("%s: more than %d connections", path, MAX_PEERS)
                writer.close()
                return
            count += 1
            self._writers.add(writer)
            try:
                await serve(self._daemon, reader, writer)
            except ConnectionError:
                pass
            except Exception:
                log.exception("internal error")
            finally:
                count -= 1
                self._writers.discard(writer)
                writer.close()

        self._servers.append(await asyncio.start_unix_server(handle, sock=_listen(path), limit=MAX_LINE))

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for writer in list(self._writers):
            writer.close()


async def _run(paths: Paths) -> None:
    memory = Memory(paths.store)
    ledger = Ledger(paths.ledger, key=paths.state + "/ledger.key")
    daemon = Daemon(paths, memory, ledger, Policies(paths, memory, policy_dirs(paths)))
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    daemon.adopt()
    try:
        ensure(paths.state)  # before any session asks whom it is to trust
    except OSError as e:
        log.error("no certificate to end TLS with: %s; requests to hosts that have rules will fail", e)
    servers = _Servers(daemon)
    sockets = {paths.control: _serve_control, paths.agent: _serve_agent, paths.approver: _serve_approver}
    for path, serve in sockets.items():
        await servers.open(path, serve)
    log.info("remitd %s, process %d, listens in %s", VERSION, os.getpid(), paths.runtime)
    daemon.spawn(daemon.bus.run())
    clock = loop.create_task(daemon.run())
    stopping = loop.create_task(stop.wait())
    await asyncio.wait({clock, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for path in sockets:
        try:
            os.unlink(path)
        except OSError:
            pass
    servers.close()
    clock.cancel()
    await daemon.close()
    if not stop.is_set():
        clock.result()  # raises what ended it
    log.info("remitd stops")


def main(argv: list[str] | None = None) -> int:
    """Run the daemon in the foreground. Returns the exit status: 0 after SIGTERM, 2 when it cannot run."""
    args = sys.argv[1:] if argv is None else argv
    if args:
        known = args in (["--help"], ["-h"])
        (sys.stdout if known else sys.stderr).write(USAGE)
        return 0 if known else 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    paths = find()
    try:
        for place in (paths.state, paths.runtime, paths.spool):
            make_private(place)
        lock = take_lock(paths.runtime)
        try:
            asyncio.run(_run(paths))
        finally:
            os.close(lock)
    except (CannotRun, PathsError, StoreError, LedgerError) as e:
        sys.stderr.write(f"remitd: {e}\n")
        return 2
    except OSError as e:
        sys.stderr.write(f"remitd: {e.filename or ''}: {e.strerror or e}\n")
        return 2
    return 0
