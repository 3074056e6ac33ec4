"""Unix sockets: which the session may reach, and where the buses really are.

A path is pinned and decided on as what it is, and the connect is made by us to the pinned inode. A session reaches the
sockets that it made itself and remit's ``agent.sock``. Of others, those of a bus lead to the gateway's filtering
proxy; those of the screen, of sound and of keys are app permissions (``use app:screen`` …); those of helpers, which would act for
whoever reaches them, are refused unless a policy names their path; the rest is the policy's ``connect`` on the path.
Abstract names are the session's own or ``connect @name``.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat
import struct

from remit_daemon.kernel import calls
from remit_daemon.peers import diag
from remit_daemon.supervisor import messages, target
from remit_daemon.supervisor.act import Act
from remit_daemon.supervisor.inet import Fd
from remit_daemon.wire.control import SUB_END
from remit_policy import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.supervisor.act import Effect, Note
    from remit_daemon.supervisor.authority import Authority
    from remit_daemon.supervisor.gateway import Gateway
    from remit_daemon.supervisor.record import Journal
    from remit_daemon.supervisor.resolve import Pin, Resolver
    from remit_daemon.supervisor.target import Targets

_SUN_PATH = 108
_LISTEN, _UNCONNECTED = 10, 7  # states, <net/tcp_states.h>
_UDIAG_SHOW_NAME, _UNIX_DIAG_NAME = 1, 0  # <linux/unix_diag.h>
_MAX_OWN = 4096  # abstract names of the session's own that are remembered
_TMP = "/tmp/"  # noqa: S108 - looked at, not made

_OWN = model.Rule(model.PACK, model.ALLOW, "connect", "/**", source="built-in: the session's own sockets")
HELPER = model.Rule(
    model.PACK, model.DENY, "connect", "/**", source="built-in: a helper that would act for you"
)
_GATEWAY = model.Rule(model.PACK, model.ALLOW, "connect", "/**", source="built-in: decided by the gateway")
_UNMEDIATED = model.Rule(model.PACK, model.ALLOW, "connect", "/**", source="net.all: unmediated")

# What the end of a socket's path says of it: (part of the path, the app permission, "" for a helper). First fit counts.
_KNOWN = (
    ("/.X11-unix/", "screen"), ("/wayland-", "screen"), ("/gamescope-", "screen"), ("/.ICE-unix/", "screen"),
    ("/pipewire-", "audio"), ("/pulse/", "audio"), ("/at-spi/", "input"), ("/at-spi2", "input"), ("/ibus", "input"),
    ("/fcitx", "input"), ("/ydotool", "input"), ("/eis-", "input"), ("SingletonSocket", "browser"),
    ("/keyring/", "keys"), ("/gnupg/", "keys"), ("/S.gpg-agent", "keys"), ("/ssh-", "keys"), ("agent.sock", "keys"),
    ("/gcr/", "keys"), ("/.1password/", "keys"), ("/ssh-agent", "keys"), ("/openssh_agent", "keys"),
    ("/kwalletd", "keys"), ("/.bitwarden", "keys"), ("/org.keepassxc", "keys"), ("/kpxc_server", "keys"),
)  # fmt: skip
# Where helpers are: service managers, multiplexers, containers, editors. Anything below these that is not in the table above.
_HELPERS = (
    "/run/",
    "/var/run/",
    *(_TMP + n for n in ("tmux-", "screen-", "vscode-", "kitty", "mykitty", "nvim", "emacs")),
)
# The same elsewhere (~/.docker, ~/.colima, a configuration's own place), by the socket's name.
_HELPING = (
    "docker", "podman", "containerd", "buildkit", "libvirt", "virtqemud", "tmux", "wezterm", "zellij", "kitty", "mykitty", "nvim",
    "emacs", "vscode-",
)  # fmt: skip


def app_of(path: str) -> str:
    """Return the app permission that the socket at ``path`` is, "" when it is none."""
    return next((app for part, app in _KNOWN if part in path), "")


def is_helper(path: str) -> bool:
    """Tell whether ``path``, which is no app permission, is where those listen that act for whoever reaches them."""
    return path.startswith(_HELPERS) or path.rpartition("/")[2].startswith(_HELPING)


class Unix:
    """The handlers of Unix sockets."""

    def __init__(
        self,
        authority: Authority,
        resolver: Resolver,
        targets: Targets,
        journal: Journal,
        gateway: Gateway,
        tmpdir: str,
        agent_socket: str,
        buses: dict[str, str],
        listener: Callable[[], int],
        sub: str = "",
    ) -> None:
        """``buses`` maps the real path (or @name) of a bus's socket to ``session`` or ``system``. ``sub``: the sub-session whose these are."""
        self._sub = sub
        self._authority = authority
        self._resolver = resolver
        self._targets = targets
        self._journal = journal
        self._gateway = gateway
        self._tmpdir = tmpdir + "/"
        self._agent_socket = agent_socket
        self._buses = {**buses, tmpdir + "/run/bus": "session"}
        self._listener = listener
        self._abstract: dict[bytes, set[int]] = {}  # the session's own names → inodes of its sockets

    # -- connect -----------------------------------------------------------------------------------

    def connect(self, note: Note, fd: int, raw: bytes) -> Act | Effect:
        """connect(fd, address, length) where ``raw`` is a Unix socket's address"""
        name = raw[2:]
        if not name or name[:1] == b"\0":
            text = abstract(name)
            rule, op, resource = self._decide_abstract(name, text)
            sock = target.take_fd(note.tid, fd)
            if text in self._buses:
                return self._bus(note, sock, self._buses[text], (Fd(sock),))
            there = raw
            held: tuple[Fd | Pin, ...] = (Fd(sock),)
        else:
            pin = self._pin(note, name)
            try:
                sock = target.take_fd(note.tid, fd)
            except BaseException:
                pin.close()
                raise
            text = pin.path
            held = (Fd(sock), pin)
            which = self._buses.get(text)
            if which is not None:
                return self._bus(note, sock, which, held)
            rule, op, resource = self._decide_path(text)
            there = _to(pin)
            if self._sub and text == self._agent_socket:
                try:
                    self._name(sock)
                except BaseException:
                    target.let_go(sock)
                    pin.close()
                    raise

        def perform() -> Effect:
            return calls.call("connect", sock, there, len(there))

        if (
            op == "use"
        ):  # what is asked for, recorded and granted is the application, not this one socket of its
            return Act(op, ((op, resource),), perform, held, path=resource, slow=True, note=text)
        accesses = () if rule else ((op, resource),)
        return Act(op, accesses, perform, held, path=text, rule=rule, slow=True)

    def _name(self, sock: int) -> None:
        """Have remitd know that this connection, which we make like all of the session, is a sub-session's: by a name that its end
        has. Whoever took another name first gets no connection. Raises OSError (EINVAL)."""
        name = struct.pack("<H", _socket.AF_UNIX) + SUB_END + f"{self._sub}-{os.urandom(8).hex()}".encode()
        calls.call("bind", sock, name, len(name))

    def _pin(self, note: Note, name: bytes) -> Pin:
        pin = self._resolver.pin(note.tid, calls.AT_FDCWD, name.split(b"\0", 1)[0])
        if not stat.S_ISSOCK(pin.mode):
            pin.close()
            raise OSError(errno.ECONNREFUSED, "not a socket")
        return pin

    def _decide_path(self, path: str) -> tuple[model.Rule | None, str, str]:
        """Return the rule that decides on the socket at ``path``, or the operation and the resource to decide."""
        authority = self._authority
        if path.startswith(self._tmpdir) or path == self._agent_socket or authority.owns(path):
            return _OWN, "connect", path
        found = authority.engine.decide("connect", path)
        if found.rule is not None:
            return None, "connect", path  # a policy, or remit itself, speaks of this very place
        if app := app_of(path):
            return None, "use", f"app:{app}"
        if authority.snapshot.net_all and not is_helper(path):
            closed = authority.decide("write", path).verdict == model.DENY
            return (None, "write", path) if closed else (_UNMEDIATED, "connect", path)
        return (HELPER if is_helper(path) else None), "connect", path

    def _decide_abstract(self, name: bytes, text: str) -> tuple[model.Rule | None, str, str]:
        own = self._abstract.get(name)
        # Each type of socket has names of its own: another program's stream may be called as the session's datagrams are.
        if own and (bound := _bound(name)) and bound <= own:
            return _OWN, "connect", text
        if self._authority.engine.decide("connect", text).rule is None and (app := app_of(text)):
            return None, "use", f"app:{app}"
        return None, "connect", text

    def _bus(self, note: Note, sock: int, which: str, held: tuple[Fd | Pin, ...]) -> Act:
        try:
            process = self._targets.process(note.tid)
            exe, comm = self._targets.exe(process), target.comm(process.tgid)
        except BaseException:
            for one in held:
                one.close()
            raise

        def perform() -> Effect:
            def gone() -> bool:
                return not calls.id_valid(self._listener(), note.id)

            _, answer = self._gateway.ask("bus", process, exe, comm, gone, which=which)
            if answer["errno"]:
                raise OSError(int(answer["errno"]), str(answer["why"]))
            there = struct.pack("<H", _socket.AF_UNIX) + os.fsencode(answer["path"]) + b"\0"
            return calls.call("connect", sock, there, len(there))

        return Act(
            "connect", (), perform, held, path=f"{which} bus", rule=_GATEWAY, slow=True, silent=True
        )  # fmt: skip

    # -- bind and send -----------------------------------------------------------------------------

    def bind(self, note: Note, fd: int, raw: bytes) -> Act | Effect:
        """bind(fd, address, length) where ``raw`` is a Unix socket's address"""
        name = raw[2:]
        if not name or name[:1] == b"\0":
            # Abstract: reached by the session alone (Landlock's scope holds others' off).
            sock = target.take_fd(note.tid, fd)
            try:
                result = calls.call("bind", sock, raw, len(raw))
                if len(self._abstract) >= _MAX_OWN:
                    self._abstract.clear()
                kept = self._abstract.get(name)
                self._abstract[name] = {os.fstat(sock).st_ino} | (kept & _bound(name) if kept else set())
            finally:
                target.let_go(sock)
            return result
        path = name.split(b"\0", 1)[0]
        place = self._resolver.place(note.tid, calls.AT_FDCWD, path)
        try:
            if place.stat() is not None:
                raise OSError(errno.EADDRINUSE, "exists")
            real = place.path
            there = b"\1\0/proc/self/fd/%d/%s\0" % (place.parent.fd, place.name)
            if len(there) > 2 + _SUN_PATH:
                raise OSError(errno.ENAMETOOLONG, "socket name too long")
            sock = target.take_fd(note.tid, fd)
        except BaseException:
            place.close()
            raise
        try:
            umask = self._targets.process(note.tid).umask
        except BaseException:
            target.let_go(sock)
            place.close()
            raise
        authority = self._authority

        def perform() -> Effect:
            old = os.umask(umask)
            try:
                calls.call("bind", sock, there, len(there))
            finally:
                os.umask(old)
            if authority.in_shared(real):
                authority.own(place.parent.fd, place.name)
            return 0

        return Act("create", (("create", real),), perform, (place, Fd(sock)), note="socket")

    def send(self, sending: messages.Sending) -> Act | Effect:
        """Messages on a Unix socket: those with a destination of their own only to sockets that may be reached"""
        names: list[bytes] = []
        pins: list[Pin] = []
        try:
            for message in sending.messages:
                if not message.name or sending.kind == messages.STREAM:
                    names.append(message.name)
                    continue
                name = message.name[2:]
                if name[:1] == b"\0":
                    rule, op, resource = self._decide_abstract(name, abstract(name))
                    names.append(message.name)
                else:
                    pin = self._pin(sending.note, name)
                    pins.append(pin)
                    rule, op, resource = self._decide_path(pin.path)
                    names.append(_to(pin))
                decision = (
                    model.Decision(rule.verdict, rule) if rule else self._authority.decide(op, resource)
                )
                if decision.verdict != model.ALLOW:
                    self._deny(sending.note, op, resource, decision)
                elif rule is not _OWN:
                    self._journal.datagram(sending.note.tid, resource, decision)
            if not pins:
                return messages.act(sending, names, self._listener, "send")
            # What would wait is refused (EAGAIN): the pinned destination is not kept over the wait.
            result = sending.send(names, None)
            sending.close()
            return result
        finally:
            for pin in pins:
                pin.close()

    def _deny(self, note: Note, op: str, resource: str, decision: model.Decision) -> None:
        """Refuse a datagram, which nobody is asked about; the ledger hears of each destination once."""
        if self._journal.first_read("datagram " + op, resource):
            process = self._targets.process(note.tid)
            self._journal.act(
                op, "deny", "refused", process, resource, rule=decision.source, note="datagram"
            )
        raise OSError(errno.EACCES, resource)


def _to(pin: Pin) -> bytes:
    return b"\1\0/proc/self/fd/%d\0" % pin.fd


def abstract(name: bytes) -> str:
    """Return the text of an abstract name (without its family): ``@`` stands for NUL."""
    return "@" + os.fsdecode(name[1:]).replace("\0", "@")


def _bound(name: bytes) -> set[int]:
    """Return the inodes of the sockets that have the abstract ``name`` now; none where the kernel does not tell."""
    found: set[int] = set()
    states = 1 << _LISTEN | 1 << _UNCONNECTED
    request = struct.pack("=BBHIIIII", _socket.AF_UNIX, 0, 0, states, 0, _UDIAG_SHOW_NAME, 0, 0)
    try:
        for body in diag.dump(request):
            here = 16  # struct unix_diag_msg: the inode is its second word; attributes follow
            while here + 4 <= len(body):
                length, what = struct.unpack_from("=HH", body, here)
                if length < 4:
                    break
                if what == _UNIX_DIAG_NAME and body[here + 4 : here + length] == name:
                    found.add(struct.unpack_from("=I", body, 4)[0])
                here += (length + 3) & ~3
    except OSError:
        return set()
    return found
