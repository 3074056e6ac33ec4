"""remitd: take the lock, open what is kept, listen, run until told to stop.

One daemon a user: the lock file in the runtime directory is held for life. Sessions outlive the daemon; they come back to the
next one by themselves.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import signal
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from remit_daemon.gateway.http.ca import ensure
from remit_daemon.ledger.store import Ledger, LedgerError
from remit_daemon.peers import senders
from remit_daemon.peers.process import Peer, PeerError, inside_session, peer_of
from remit_daemon.runtime.agent import Agent
from remit_daemon.runtime.approver import VERSION, Approver
from remit_daemon.runtime.channel import Channel
from remit_daemon.runtime.control import Control
from remit_daemon.runtime.daemon import Daemon
from remit_daemon.runtime.lines import refuse
from remit_daemon.runtime.policies import Policies, policy_dirs
from remit_daemon.runtime.store import Memory, StoreError
from remit_daemon.wire.paths import Paths, PathsError, find, make_private

log = logging.getLogger("remitd")

BACKLOG = 64
MAX_PEERS = 64  # connections of one socket at a time
MAX_PEERS_EACH = 16  # of those, one process's; a session's are all made by its supervisor
MAX_DESCRIPTORS = 8192  # all places taken on every socket and on the bus are some two thousand
ACCEPT_AGAIN = 1.0  # seconds until the next try when there are no descriptors or memory for a connection
USAGE = "usage: remitd\n\nRuns the daemon in the foreground until SIGTERM or SIGINT. It takes no options.\n"

Handler = Callable[[Daemon, Peer, Channel], Awaitable[None]]


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


class _Servers:
    """The listening sockets and their connections."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._listeners: list[socket.socket] = []
        self._channels: set[Channel] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, path: str, serve: Handler) -> None:
        """Serve the connections to ``path``. Raises CannotRun."""
        sock = _listen(path)
        self._listeners.append(sock)
        self._spawn(self._accept(path, sock, serve))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, path: str, listener: socket.socket, serve: Handler) -> None:
        loop = asyncio.get_running_loop()
        places = asyncio.BoundedSemaphore(MAX_PEERS)
        held: Counter[str] = Counter()  # whose they are
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as e:
                log.error("%s: cannot accept: %s", path, e.strerror or e)
                await asyncio.sleep(ACCEPT_AGAIN)
                continue
            if places.locked():
                log.warning("%s: more than %d connections", path, MAX_PEERS)
                sock.close()
            else:
                await places.acquire()
                self._spawn(self._handle(sock, serve, places, held))
            await asyncio.sleep(0)  # who connects all the time leaves the others their turn

    async def _handle(
        self, sock: socket.socket, serve: Handler, places: asyncio.Semaphore, held: Counter[str]
    ) -> None:
        try:
            try:
                peer = peer_of(sock)
            except PeerError as e:
                log.warning("refused: %s", e)
                return
            if held[peer.identity] >= MAX_PEERS_EACH:
                log.warning("refused: process %d has %d connections already", peer.pid, MAX_PEERS_EACH)
                peer.close()
                return
            held[peer.identity] += 1
            channel = Channel(sock, peer)
            self._channels.add(channel)
            try:
                await serve(self._daemon, peer, channel)
            except ConnectionError:
                pass
            except Exception:
                log.exception("internal error")
            finally:
                held[peer.identity] -= 1
                if not held[peer.identity]:
                    del held[peer.identity]
                self._channels.discard(channel)
                channel.close()
                peer.close()
        finally:
            sock.close()
            places.release()

    async def close(self) -> None:
        """Listen no more and end every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()


def _want_descriptors() -> None:
    """Have as many as MAX_DESCRIPTORS: connections and processes are held by them, and what is asked for keeps its own open meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
        servers.open(path, serve)
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
    _want_descriptors()
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
