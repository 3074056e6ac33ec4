"""From a command line to a confined child whose listener is in our hands.

In the child, in this order: signals as they were, the session's mark, death with its parent, every inherited
descriptor closed, then ``confine`` (no new privileges, Landlock, the filter). It writes the listener's number to a pipe
and waits; the parent takes the listener over (pidfd_getfd), starts to answer, and lets it exec.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from remit_daemon.kernel import calls
from remit_daemon.kernel.confine import confine
from remit_daemon.peers import mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    import signal

    from remit_daemon.kernel.landlock import Ruleset
else:
    import _signal as signal
    import resource

# What makes a loader or an interpreter run something before the program it was asked for, and what
# points at helpers outside that the session cannot reach anyway.
_SCRUB = frozenset(
    (
        "BASH_ENV", "ENV", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONINSPECT", "PYTHONBREAKPOINT", "NODE_OPTIONS", "BUN_OPTIONS",
        "DENO_CONFIG", "PERL5OPT", "PERL5LIB", "PERL5DB", "RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS",
        "JDK_JAVA_OPTIONS", "LUA_INIT", "GCONV_PATH", "GETCONF_DIR", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH", "MALLOC_TRACE",
        "NIS_PATH", "NLSPATH", "RESOLV_HOST_CONF", "RES_OPTIONS", "TZDIR", "GLIBC_TUNABLES", "TMUX", "TMUX_PANE", "STY",
        "GPG_AGENT_INFO", "DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID",
        "LISTEN_FDNAMES",
    )
)  # fmt: skip
_SCRUB_STARTS = ("LD_", "BASH_FUNC_", "LUA_INIT_", "REMIT_")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


class LaunchError(Exception):
    """The agent could not be started; ``code`` is the exit status for it (125, or 126/127 as env(1))."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
_DIRECT = "localhost,127.0.0.1,::1"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def proxies(port: int) -> dict[str, str]:
    """Return the variables that lead programs to the gateway's proxy at ``port``."""
    address = f"http://127.0.0.1:{port}"
    return dict.fromkeys(_PROXIES, address) | {"NO_PROXY": _DIRECT, "no_proxy": _DIRECT}


def environment(
    given: dict[str, str],
    policy: dict[str, str],
    tmpdir: str,
    session: str,
    agent: str,
    agent_socket: str,
    own: dict[str, str],
) -> dict[str, str]:
    """Return the agent's environment: ``given`` without what injects code, what ``policy`` sets, and, whatever they
    say, the session's own directories and ``own``."""
    kept = {k: v for k, v in given.items() if k not in _SCRUB and not k.startswith(_SCRUB_STARTS)}
    kept |= _desktop(kept.get("XDG_RUNTIME_DIR", ""), kept.get("WAYLAND_DISPLAY", ""))
    kept |= policy
    kept.update(
        **places(tmpdir),
        REMIT_SESSION=session,
        REMIT_AGENT=agent,
        REMIT_SOCKET=agent_socket,
        **own,
    )
    return kept


# Where shells and the like keep what was typed (bash(1), less(1), psql(1), mysql(1), sqlite3; python and node: their command line).
# They read it at their start: without one of the session's own that is a question about the person's, and a wait.
_HISTORIES = (
    "HISTFILE", "LESSHISTFILE", "PYTHON_HISTORY", "NODE_REPL_HISTORY", "SQLITE_HISTORY", "PSQL_HISTORY", "MYSQL_HISTFILE"
)  # fmt: skip


def places(tmpdir: str) -> dict[str, str]:
    """Return the variables that name a session's private directory, and files in it."""
    return (
        dict.fromkeys(("TMPDIR", "TMP", "TEMP", "TMUX_TMPDIR"), tmpdir)
        | {name: f"{tmpdir}/.{name.lower()}" for name in _HISTORIES}
        | {"XDG_RUNTIME_DIR": tmpdir + "/run"}
    )


def _desktop(runtime: str, display: str) -> dict[str, str]:
    """Return what still leads to the sockets of the person's screen and sound in ``runtime``, which is not the session's
    runtime directory: they are reached, and then asked about, only by who finds them (wayland(7), pulse, pipewire(1))."""
    if not runtime.startswith("/"):
        return {}
    found = {"PULSE_RUNTIME_PATH": runtime + "/pulse", "PIPEWIRE_RUNTIME_DIR": runtime}
    if display and not display.startswith("/"):
        found["WAYLAND_DISPLAY"] = f"{runtime}/{display}"
    return found


def find_program(name: str, path: str) -> str:
    """Return the file that ``name`` means, searching ``path`` as execvp(3) does.

    Raises LaunchError: 127 when there is none, 126 when it cannot be run.
    """
    places = [name] if "/" in name else [os.path.join(d or ".", name) for d in path.split(":")]
    found = ""
    for place in places:
        try:
            st = os.stat(place)
        except OSError:
            continue
        if stat.S_ISREG(st.st_mode):
            if os.access(place, os.X_OK):
                return place
            found = found or place
    if found:
        raise LaunchError(f"cannot run {found}: permission denied", 126)
    if len(places) == 1 and os.path.isdir(name):
        raise LaunchError(f"cannot run {name}: it is a directory", 126)
    raise LaunchError(f"cannot run {name}: no such program", 127)


def make_tmpdir() -> str:
    """Create the session's private directory for temporary files and sockets; returns its path."""
    for root in ("/tmp", "/var/tmp"):  # noqa: S108 - the name is random, the mode 0700, and it must be new
        path = f"{root}/remit-{os.getuid()}-{os.urandom(6).hex()}"
        try:
            os.mkdir(path, 0o700)
            os.mkdir(path + "/run", 0o700)
        except OSError:
            continue
        return os.path.realpath(path)
    raise LaunchError("cannot create a private directory in /tmp or /var/tmp", 125)


def make_socket(path: str) -> None:
    """Put a socket at ``path``, for programs that look whether one is there; who connects is led elsewhere."""
    import _socket

    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.bind(path)
    finally:
        sock.close()


def remove_tree(path: str) -> None:
    """Remove the session's private directory; links in it are removed, not followed. What cannot be removed stays.

    By hand: importing shutil, and with it all compressors, takes as long as the rest of the end.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except OSError:
        return
    above = [(top, _names(top))]  # as deep as we are; a name leaves it when what had it is gone, or stays
    while above:
        here, names = above[-1]
        if names:
            try:
                os.unlink(names[-1], dir_fd=here)
            except IsADirectoryError:
                try:
                    below = os.open(names[-1], _DIRECTORY, dir_fd=here)
                except OSError:
                    names.pop()
                    continue
                above.append((below, _names(below)))
                continue
            except OSError:
                pass
            names.pop()
            continue
        above.pop()
        os.close(here)
        try:
            if above:
                os.rmdir(above[-1][1].pop(), dir_fd=above[-1][0])
            else:
                os.rmdir(path)
        except OSError:
            pass


def _names(directory: int) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def become_subreaper() -> None:
    """Make orphans of the session ours, so that a daemon of the agent's stays below us."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise LaunchError("cannot become a subreaper", 125)


def start_warden(tag: int) -> int:
    """Fork a process that ends the session's tree should we die without doing so; returns what keeps it waiting.

    It is nobody's child and holds nothing but a pipe: when the last writer (this process) is gone, however it went, every
    process that carries ``tag`` is killed. The filter is fail-closed without us (ENOSYS), but not mediated is not run.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    first = os.fork()
    if first:
        os.close(read)
        os.waitpid(first, 0)
        return write
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.dup2(read, 3)
        os.closerange(4, 1 << 16)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.chdir("/")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while os.read(3, 1):
            pass
        mark.kill_tree(tag)
    finally:
        os._exit(0)


class Child:
    """The confined child before its exec: ``go`` lets it."""

    __slots__ = ("_status", "_sync", "listener", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, listener: int, sync: int, status: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.listener = listener
        self._sync = sync
        self._status = status

    def go(self) -> None:
        """Let the child exec."""
        os.write(self._sync, b"g")
        os.close(self._sync)

    def exec_error(self) -> int:
        """Wait until the child has exec'ed; returns 0, or the errno with which exec failed."""
        raw = os.read(self._status, 16)
        os.close(self._status)
        return int(raw) if raw else 0


def start(
    program: str,
    argv: list[str],
    env: dict[str, str],
    ruleset: Ruleset,
    blob: bytes,
    tag: int,
    mask: set[int],
    wait_killable: bool,
) -> Child:
    """Fork and confine the child. ``mask`` is the signal mask it is to have.

    Raises LaunchError when it could not be confined; nothing then runs.
    """
    from_child, to_parent = os.pipe2(os.O_CLOEXEC)
    from_parent, to_child = os.pipe2(os.O_CLOEXEC)
    status, to_status = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _child(
            program, argv, env, ruleset, blob, tag, mask, wait_killable, parent,
            (to_parent, from_parent, to_status),
        )  # fmt: skip
    for fd in (to_parent, from_parent, to_status):
        os.close(fd)
    raw = os.read(from_child, 512)
    os.close(from_child)
    if not raw.isdigit():
        os.close(to_child)
        os.waitpid(pid, 0)
        text = raw.decode("utf-8", "replace") or "it died"
        raise LaunchError(f"cannot confine the agent: {text}", 125)
    pidfd = calls.pidfd_open(pid)
    try:
        listener = calls.pidfd_getfd(pidfd, int(raw))
    except OSError as e:
        os.kill(pid, signal.SIGKILL)
        raise LaunchError(f"cannot take over the agent's listener: {e.strerror}", 125) from None
    return Child(pid, pidfd, listener, to_child, status)


def _child(
    program: str,
    argv: list[str],
    env: dict[str, str],
    ruleset: Ruleset,
    blob: bytes,
    tag: int,
    mask: set[int],
    wait_killable: bool,
    parent: int,
    pipes: tuple[int, int, int],
) -> None:
    """Become the agent; never returns."""
    to_parent, from_parent, to_status = pipes
    try:
        for number in (
            signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE,
            signal.SIGXFSZ, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD,
        ):  # fmt: skip
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_RTTIME, (tag, tag))
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(125)
        low = sorted((*pipes, ruleset.fd))
        for fd, following in zip([2, *low], [*low, 1 << 16], strict=True):
            os.closerange(fd + 1, following)
        listener = confine(ruleset, blob, wait_killable=wait_killable)
        os.write(to_parent, b"%d" % listener)
        if os.read(from_parent, 1) != b"g":
            os._exit(125)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            os.execve(program, argv, env)  # noqa: S606 - running what the person asked for is the point
        except OSError as e:
            os.write(to_status, b"%d" % (e.errno or errno.EACCES))
            os._exit(126)
    except BaseException as e:
        os.write(to_parent, str(e).encode("utf-8", "replace")[:500])
    finally:
        os._exit(125)
