"""remitd: take the lock, open what is kept, listen, run until told to stop.

One daemon a user: the lock file in the runtime directory is held for life. Sessions outlive the daemon; they come back to the
next one by themselves.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from remit_daemon.gateway.http.ca import ensure
from remit_daemon.ledger.store import Ledger, LedgerError
from remit_daemon.peers import senders
from remit_daemon.peers.process import Peer, PeerError, inside_session, peer_of
from remit_daemon.runtime.agent import Agent
from remit_daemon.runtime.approver import Approver
from remit_daemon.runtime.channel import Channel
from remit_daemon.runtime.control import Control
from remit_daemon.runtime.daemon import Daemon
from remit_daemon.runtime.deno import Deno
from remit_daemon.runtime.lines import refuse
from remit_daemon.runtime.oauth.settings import SettingsFile
from remit_daemon.runtime.places import Places
from remit_daemon.runtime.policies import Policies, policy_dirs
from remit_daemon.runtime.store import Memory, StoreError
from remit_daemon.wire.paths import Paths, PathsError, find, make_private
from remit_daemon.wire.rpc import BUSY
from remit_daemon.wire.words import VERSION

if TYPE_CHECKING:
    from remit_daemon.runtime.oauth.server import Server

log = logging.getLogger("remitd")

BACKLOG = 1024  # connections that wait to be accepted: a thousand programs may come at once
# Connections at once: of all, of one session or process outside, and kept for those with few. A session is hostile, so it gets no more
# than an ordinary one needs; a program outside may well be many clients in one process. Sessions and others do not share places, and
# the person's socket has its own, of which no process gets the most.
INSIDE = (512, 64, 256)
OUTSIDE = (1280, 1024, 192)
PERSON = (256, 64, 128)
ENFORCERS = (512, 16, 256)  # a supervisor and a gateway have one each
DENOS = (256, 16, 64)  # a deno has one
OAUTH = (256, 32, 64)  # a client keeps one or two
FILES_WANTED = (
    2 * (INSIDE[0] + OUTSIDE[0] + PERSON[0] + ENFORCERS[0] + DENOS[0] + OAUTH[0]) + 1024
)  # a connection holds its process, too
SAY_EVERY = 10.0  # seconds between lines of the log about connections that are too many
ACCEPT_AGAIN = 1.0  # seconds until the next try when there are no descriptors or memory for a connection
USAGE = "usage: remitd\n\nRuns the daemon in the foreground until SIGTERM or SIGINT. It takes no options.\n"

Handler = Callable[[Daemon, Peer, Channel], Awaitable[None]]
Rooms = tuple[Places, Places]  # for connections from inside sessions, and from outside


_FULL = json.dumps(
    {"jsonrpc": "2.0", "id": None, "error": {"code": BUSY, "message": "too many connections; close some, or try again"}}
).encode() + b"\n"  # fmt: skip


class CannotRun(Exception):
    """remitd cannot run; the text says why."""


def take_lock(path: str) -> int:
    """Lock ``path`` for this daemon and return the descriptor that holds the lock. Raises CannotRun."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise CannotRun(f"remitd runs already (process {held or 'unknown'})") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def _more_files() -> None:
    """Let this process have the descriptors that so many connections take, as far as the machine allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if most > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < FILES_WANTED:
        log.warning(
            "%d descriptors are all that there may be, and %d are wanted: fewer connections fit",
            most,
            FILES_WANTED,
        )


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
    senders.ask(sock)
    sock.listen(BACKLOG)
    return sock


async def _serve_control(daemon: Daemon, peer: Peer, channel: Channel) -> None:
    await Control(daemon, peer, channel).serve()


async def _serve_approver(daemon: Daemon, peer: Peer, channel: Channel) -> None:
    if inside_session(peer.pid, daemon.supervisors()):
        log.warning("approver: refused: process %d is inside a session", peer.pid)
        refuse(channel, "programs inside a session may not use this socket")
    else:
        daemon.lanes.person()
        await Approver(daemon, peer, channel).serve()
    await channel.linger()


async def _serve_agent(daemon: Daemon, peer: Peer, channel: Channel) -> None:
    await Agent(daemon, peer, channel).serve()
    await channel.linger()


async def _serve_deno(daemon: Daemon, peer: Peer, channel: Channel) -> None:
    await Deno(daemon, peer, channel).serve()


class _Servers:
    """The listening sockets and their connections."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._said = -SAY_EVERY  # when it was logged that somebody was turned away

    def open(self, path: str, serve: Handler, outside: tuple[int, int, int]) -> None:
        """Serve the connections to ``path``, of which so many may be from outside sessions. Raises CannotRun."""
        sock = _listen(path)
        self._listeners.append(sock)
        self._spawn(self._accept(path, sock, serve, (Places(*INSIDE), Places(*outside))))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, path: str, listener: socket.socket, serve: Handler, rooms: Rooms) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as e:
                log.error("%s: cannot accept: %s", path, e.strerror or e)
                await asyncio.sleep(ACCEPT_AGAIN)
                continue
            try:
                peer = peer_of(sock)
            except (PeerError, OSError) as e:
                log.warning("%s: refused: %s", path, e)
                sock.close()
            else:
                holder, places = self._holder(sock, peer, rooms)
                if places.take(holder):
                    self._spawn(self._handle(sock, peer, serve, holder, places))
                else:
                    self._turn_away(path, sock, peer)
            await asyncio.sleep(0)  # who connects all the time leaves the others their turn

    def _holder(self, sock: socket.socket, peer: Peer, rooms: Rooms) -> tuple[str, Places]:
        """Return whose a connection is, the session with all that it delegated to or the process, and where its place is."""
        session = self._daemon.by_peer(peer.pid, sock.getpeername())
        if session is not None and session.confined:
            return self._daemon.root(session.id), rooms[0]
        return peer.identity, rooms[1]

    def _turn_away(self, path: str, sock: socket.socket, peer: Peer) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._said + SAY_EVERY:
            self._said = now
            log.warning("%s: process %d has as many connections as it may, or all have", path, peer.pid)
        try:
            sock.send(_FULL)
        except OSError:
            pass  # it has gone, or does not read
        sock.close()
        peer.close()

    async def _handle(
        self, sock: socket.socket, peer: Peer, serve: Handler, holder: str, places: Places
    ) -> None:
        try:
            channel = Channel(sock, peer)
            try:
                await serve(self._daemon, peer, channel)
            except ConnectionError:
                pass
            except Exception:
                log.exception("internal error")
            finally:
                channel.close()
        finally:
            peer.close()
            sock.close()
            places.leave(holder)

    async def close(self) -> None:
        """Listen no more and end every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()


class _OAuth:
    """The authorization server, made when it is first needed: reading HTTP takes 30 ms of a start to import, and few ever use it."""

    def __init__(self, daemon: Daemon, file: SettingsFile) -> None:
        self._daemon = daemon
        self._file = file
        self._made: Server | None = None

    def _server(self) -> Server:
        if self._made is None:
            from remit_daemon.runtime.oauth.endpoints import Endpoints
            from remit_daemon.runtime.oauth.server import Server

            self._made = Server(self._daemon, Endpoints(self._daemon, self._file))
        return self._made

    async def loopback(self) -> str:
        """Serve at the port that the person chose, and return the issuer; "" where none was chosen, or it cannot be had."""
        port = self._file.now().loopback
        if port is None:
            return ""
        try:
            issuer = await self._server().listen(port)
        except OSError as e:
            log.error("oauth: port %d: %s; the socket alone is served", port, e.strerror or e)
            return ""
        log.info("oauth: %s", issuer)
        return issuer

    async def unix(self, issuer: str, peer: Peer, channel: Channel) -> None:
        """Serve one connection at the socket."""
        await self._server().unix(issuer, peer, channel)

    async def close(self) -> None:
        """Listen no more and end every connection."""
        if self._made is not None:
            await self._made.close()


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
    oauth = _OAuth(daemon, SettingsFile(paths.config))
    issuer = await oauth.loopback() or f"http+unix://{quote(paths.oauth, safe='')}"

    async def serve_oauth(_: Daemon, peer: Peer, channel: Channel) -> None:
        await oauth.unix(issuer, peer, channel)
        await channel.linger()

    sockets: dict[str, tuple[Handler, tuple[int, int, int]]] = {
        paths.control: (_serve_control, ENFORCERS),
        paths.agent: (_serve_agent, OUTSIDE),
        paths.approver: (_serve_approver, PERSON),
        paths.deno: (_serve_deno, DENOS),
        paths.oauth: (serve_oauth, OAUTH),
    }
    for path, (serve, outside) in sockets.items():
        servers.open(path, serve, outside)
    log.info("remitd %s, process %d, listens in %s", VERSION, os.getpid(), paths.runtime)
    if daemon.senders != senders.PIDFD:
        log.warning(
            "this kernel names the writer of a message by number alone: one that ended may be taken for another"
        )
    daemon.spawn(daemon.bus.run())
    daemon.spawn(daemon.contents.run())
    daemon.spawn(daemon.desktop.run())
    clock = loop.create_task(daemon.run())
    stopping = loop.create_task(stop.wait())
    await asyncio.wait({clock, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for path in sockets:
        try:
            os.unlink(path)
        except OSError:
            pass
    await servers.close()
    await oauth.close()
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
    _more_files()
    try:
        for place in (paths.state, paths.runtime, paths.spool):
            make_private(place)
        lock = take_lock(paths.lock)
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
