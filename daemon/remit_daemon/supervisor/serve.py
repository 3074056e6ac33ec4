"""One session, from remitd's welcome to the agent's end.

``run`` says hello and imports this module while remitd makes the snapshot.
"""

from __future__ import annotations

import _thread
import gc
import os
import sys
import time

from remit_daemon.kernel import bpf
from remit_daemon.kernel.syscalls import NATIVE
from remit_daemon.supervisor import jobs, launch, machine, trailers, upcall
from remit_daemon.supervisor.authority import Authority
from remit_daemon.supervisor.gateway import Gateway
from remit_daemon.supervisor.inet import Inet
from remit_daemon.supervisor.injected import Injected
from remit_daemon.supervisor.listeners import Listeners, OwnPorts
from remit_daemon.supervisor.metadata import Metadata
from remit_daemon.supervisor.mounts import slow_mounts
from remit_daemon.supervisor.names import Names
from remit_daemon.supervisor.narrow import Narrow
from remit_daemon.supervisor.opens import Opens
from remit_daemon.supervisor.programs import Programs
from remit_daemon.supervisor.record import Journal
from remit_daemon.supervisor.resolve import Resolver
from remit_daemon.supervisor.session import Session
from remit_daemon.supervisor.sockets import Others, Sockets
from remit_daemon.supervisor.subs import Line, Sub, Subs, check
from remit_daemon.supervisor.target import Targets
from remit_daemon.supervisor.unix import Unix
from remit_policy import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from typing import Any

    from remit_daemon.supervisor.hashes import Hashes
    from remit_daemon.supervisor.upcall import Upcall
    from remit_daemon.wire.paths import Paths
else:
    import resource

_FILES_WANTED = 65536


class Start:
    """What ``run`` has found and made: the program, its environment, the session's directory, mark and warden."""

    def __init__(
        self,
        here: Paths,
        hello: dict[str, Any],
        program: str,
        env: dict[str, str],
        hashes: Hashes,
        kept: int,
    ) -> None:
        self.here = here
        self.hello = hello
        self.program = program
        self.env = env
        self.hashes = hashes
        self.kept = kept  # closing it tells the warden that all is over


def serve(start: Start, line: Upcall) -> int:
    """Start the agent and mediate it. Ends the process as the agent ended; returns only by raising.

    Raises upcall.Refused, upcall.Unreachable, launch.LaunchError, landlock.LandlockError, before anything runs.
    """
    here, hello, program = start.here, start.hello, start.program
    tag, tmpdir = hello["tag"], hello["tmpdir"]
    welcome = line.hear()
    if welcome["message"]:
        sys.stderr.write(f"remit: {welcome['message']}\n")
    try:
        authority = Authority(model.loads(welcome["snapshot"]))
    except model.SnapshotError as e:
        raise upcall.Refused(
            f"remitd's policy cannot be read ({e}); is another version's remitd running?", 125
        ) from None
    ruleset = authority.build_ruleset()
    snapshot = authority.snapshot
    blob = bpf.build(
        reads_fixed=snapshot.reads == "fixed",
        net_all=snapshot.net_all,
        also=frozenset({"umask", "listen"}),
    )
    targets = Targets(tag)
    resolver = Resolver(targets)
    journal = Journal(f"{here.spool}/{welcome['session']}.journal", targets, line.poke)
    injected = None if snapshot.net_all else Injected(tmpdir, here.state + "/ca.pem", start.env)
    own = injected.make() if injected is not None else {}
    opens = Opens(authority, resolver, targets, journal, injected)
    opens.slow_mounts = slow_mounts()
    session = Session(welcome["session"], authority, journal, targets, line, hello, hello["hold"] / 1000)
    session.revision = welcome["revision"]
    session.static_changed = opens.forget
    network = Network(start, session, welcome["agent"])

    def make(frame: dict[str, Any], above: Session) -> Sub:
        # ``snapshot`` is what the filter was made by, whatever is in force since.
        check(snapshot.reads, not snapshot.net_all, frame["net_all"])
        return make_sub(start, frame, above, line, injected, subs)

    subs = Subs(session, tag, line, make)
    _register(session, authority, resolver, targets, journal, opens, start.hashes, network, subs)
    mask = jobs.block()  # before any thread is: one that does not block a signal would be given it
    own |= network.environment(tmpdir + "/run")
    if snapshot.trailers:
        own |= trailers.make(f"{tmpdir}/run/hooks", start.env | snapshot.env, welcome["agent"], session.id)

    launch.become_subreaper()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    child = launch.start(
        program,
        [*hello["argv"][:1], *snapshot.arguments, *hello["argv"][1:]],
        launch.environment(start.env, snapshot.env, tmpdir, session.id, welcome["agent"], here.agent, own),
        ruleset,
        blob,
        tag,
        mask,
        True,
    )
    ruleset.close()
    # For ourselves, after the fork: pinned objects of held calls take descriptors.
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _FILES_WANTED)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    os.umask(0o077)

    def finish(status: int) -> None:
        with session.lock:
            subs.close()
            session.ended(status)
        network.gateway.close()
        words = session.last_words() if hello["tty"] else ""
        launch.remove_tree(tmpdir)
        os.close(start.kept)
        code = child.exec_error()
        if code and status == 126:
            _say(f"cannot run {program}: {os.strerror(code)}")
            os._exit(127 if code == 2 else 126)
        if words:
            _say(words)
        jobs.end_like(status)

    waiting = jobs.Jobs(child.pid, tag, finish)

    def command(kind: str) -> None:
        if kind == "stop":
            try:
                _thread.start_new_thread(waiting.end_tree, ())
            except (
                RuntimeError
            ):  # the agent has used up this user's processes: meanwhile nothing else is mediated
                waiting.end_tree()
        else:
            from signal import SIGCONT, SIGSTOP

            waiting.signal_tree(SIGSTOP if kind == "pause" else SIGCONT)

    session.on_command = command
    _thread.start_new_thread(line.serve, (subs,))
    _thread.start_new_thread(waiting.serve, ())
    gc.freeze()
    _listen(child.listener, True)
    child.go()
    session.serve(child.listener)
    while True:  # the last process is gone; the jobs thread ends us as the agent ended
        time.sleep(1)


def _say(text: str) -> None:
    """Write ``text`` to the terminal; it may be gone (EIO) when the session ended because it was closed."""
    try:
        sys.stderr.write("".join(f"remit: {line}\n" for line in text.split("\n")))
        sys.stderr.flush()
    except OSError:
        pass


def _listen(listener: int, sync: bool) -> None:
    """Have the target woken on our processor (Linux 6.6; without it each answer costs a wake-up elsewhere)."""
    import fcntl

    from remit_daemon.kernel import calls

    if sync:
        try:
            fcntl.ioctl(listener, calls.SET_FLAGS, calls.SYNC_WAKE_UP)
        except OSError:
            pass


class Network:
    """What mediates a session's sockets, and what the agent's environment says of it."""

    def __init__(self, start: Start, session: Session, agent: str) -> None:
        self._start = start
        self._session = session
        self._agent = agent
        self.own = OwnPorts()
        self.buses = machine.bus_addresses(start.env)
        self.nameservers = machine.nameservers()
        self.gateway = Gateway(start.here, session.id, Listeners(), start.env, self._hello)

    def _hello(self) -> dict[str, Any]:
        start, session = self._start, self._session
        snapshot = session.authority.snapshot
        wanted = {s.place[0] for s in snapshot.secrets if s.kind == "env"}
        return {
            "session": session.id,
            "agent": self._agent,
            "tag": start.hello["tag"],
            "snapshot": model.dumps(snapshot),
            "revision": session.revision,
            "control": start.here.control,
            "nameservers": self.nameservers,
            "env": {k: v for k, v in start.env.items() if k in wanted},
            "session_bus": self.buses["session"],
            "system_bus": self.buses["system"],
            "hold": start.hello["hold"],
            "home": start.hello["home"],
        }

    def environment(self, run: str) -> dict[str, str]:
        """Return the variables that the network gives the agent. Starts the gateway if there are secrets to keep.

        run: a path of the directory ``run`` in the session's own, in which a bus's socket is made.
        """
        snapshot, tmpdir = self._session.authority.snapshot, self._start.hello["tmpdir"]
        own: dict[str, str] = {}
        if not snapshot.net_all:
            own |= launch.proxies(self.gateway.listeners.ports["proxy"])
        if self.buses["session"]:
            launch.make_socket(run + "/bus")
            own["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={tmpdir}/run/bus"
        if snapshot.secrets:
            for secret in snapshot.secrets:
                if secret.kind == "env":
                    own[secret.place[0]] = ""
            self.gateway.start()
            own |= self.gateway.placeholders
        return own

    def handlers(
        self, authority: Authority, resolver: Resolver, targets: Targets, journal: Journal, subs: Subs
    ) -> Sockets:
        """Return the handlers of socket calls."""
        start, session = self._start, self._session
        named, sockets = machine.HostsFile().names, {}
        for which, address in self.buses.items():
            sockets.update(dict.fromkeys(machine.sockets_of(address), which))

        def listener() -> int:
            return session.listener

        inet = Inet(authority, targets, journal, self.gateway, self.own, self.nameservers, named, listener)
        tmpdir, agent = start.hello["tmpdir"], start.here.agent
        sub = session.id if not authority.backed else ""
        unix = Unix(
            authority, resolver, targets, journal, self.gateway, tmpdir, agent, sockets, listener, sub
        )
        return Sockets(inet, unix, targets, journal, subs.claimer(session))


def make_sub(
    start: Start, frame: dict[str, Any], above: Session, line: Upcall, injected: Injected | None, subs: Subs
) -> Sub:
    """Make the sub-session of ``above`` that a ``delegate`` frame describes: the same parts as a session's own, narrowed.

    Raises OSError, SnapshotError, PatternError, KeyError; it then has no process and no connection.
    """
    tmpdir = frame["tmpdir"]
    run = _own_directory(tmpdir)
    network = None
    try:
        authority = Narrow(model.loads(frame["snapshot"]), above.authority)
        targets = Targets(frame["mark"])
        resolver = Resolver(targets)
        journal = Journal(f"{start.here.spool}/{frame['sub']}.journal", targets, line.poke)
        opens = Opens(authority, resolver, targets, journal, injected)
        opens.slow_mounts = slow_mounts()
        hello = {**start.hello, "tag": frame["mark"], "tmpdir": tmpdir}
        hold = hello["hold"] / 1000
        session = Session(frame["sub"], authority, journal, targets, Line(line, frame["sub"]), hello, hold)
        session.lock, session.listener, session.revision = above.lock, above.listener, frame["revision"]
        session.static_changed = opens.forget
        own = Start(start.here, hello, start.program, start.env, start.hashes, start.kept)
        network = Network(own, session, frame["agent"])
        _register(session, authority, resolver, targets, journal, opens, start.hashes, network, subs)
        env = network.environment(f"/proc/self/fd/{run}")
        if authority.snapshot.trailers:
            made = f"/proc/self/fd/{run}/hooks"
            found = trailers.make(made, start.env | authority.snapshot.env, frame["agent"], session.id)
            env |= {name: value.replace(made, tmpdir + "/run/hooks") for name, value in found.items()}
        env |= launch.places(tmpdir) | {"REMIT_SESSION": session.id, "REMIT_AGENT": frame["agent"]}
        return Sub(session, network.gateway, env)
    except BaseException:
        if network is not None:
            network.gateway.close()
            network.gateway.listeners.close()
        raise
    finally:
        os.close(run)


def _own_directory(tmpdir: str) -> int:
    """Make a sub-session's private directory in that of the one above, which the agent may change while we do; returns a descriptor
    of the directory ``run`` in it. Raises OSError."""
    kind = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    head, _, name = tmpdir.rpartition("/")
    above = os.open(head, kind)
    try:
        os.mkdir(name, 0o700, dir_fd=above)
        own = os.open(name, kind, dir_fd=above)
    finally:
        os.close(above)
    try:
        os.mkdir("run", 0o700, dir_fd=own)
        return os.open("run", kind, dir_fd=own)
    finally:
        os.close(own)


def _register(
    session: Session,
    authority: Authority,
    resolver: Resolver,
    targets: Targets,
    journal: Journal,
    opens: Opens,
    hashes: Hashes,
    network: Network,
    subs: Subs,
) -> None:
    names = Names(authority, resolver, targets, opens.forget)
    metadata = Metadata(resolver)
    programs = Programs(resolver, targets, hashes)
    sockets = network.handlers(authority, resolver, targets, journal, subs)
    others = Others(targets)
    for holder, served in (
        (opens, "open openat openat2 creat"),
        (
            names,
            "mkdir mkdirat mknod mknodat symlink symlinkat link linkat unlink unlinkat rmdir rename renameat renameat2",
        ),
        (
            metadata,
            "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat"
            " setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat"
            " file_setattr truncate",
        ),
        (programs, "execve execveat"),
        (sockets, "socket connect bind listen sendto sendmsg sendmmsg"),
        (others, "umask"),
    ):
        session.register({name: getattr(holder, name) for name in served.split()}, NATIVE)
    session.fast[NATIVE["openat"]] = opens.fast_openat
    session.register(
        {
            "socketpair": sockets.socket,
            "prlimit64": others.on_pid,
            "sched_setaffinity": others.on_pid,
            "sched_setscheduler": others.on_pid,
            "sched_setparam": others.on_pid,
            "sched_setattr": others.on_pid,
            "setpriority": others.on_which,
            "ioprio_set": others.on_which,
        },
        NATIVE,
    )
