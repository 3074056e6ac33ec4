"""What this session may do: the snapshot compiled, and the zones that follow from it.

An access is *static* when the kernel may be let perform it on the target's own string (CONTINUE). That is safe
only because Landlock, installed at the start, grants no more than what the policy allows: however the string
changes, the access ends in an allowed place. The grants of Landlock cannot be taken back, so when a later snapshot
no longer allows all of them, nothing of that kind is static any more and every access is done on behalf.

The kernel runs a program only where Landlock lets it be read. So a tree that is allowed but for some holes, and whose
programs may run, is granted as a whole; the holes are then kept by us alone, and no read at all is static.
"""

from __future__ import annotations

import os
import stat
import time

from remit_daemon.kernel import landlock
from remit_policy import hosts, model
from remit_policy.engine import Engine
from remit_policy.laws import conditions
from remit_policy.limits import Purse
from remit_policy.match import expand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remit_policy.model import Decision, Snapshot

# What Landlock can stand behind, and which operations must be allowed everywhere below a root for it.
READ, LIST, WRITE = range(3)
_NEEDS = {
    READ: ("read",),
    LIST: ("list",),
    WRITE: ("read", "list", "write", "create", "delete"),
}
_SHARED = ("/tmp/", "/var/tmp/", "/dev/shm/")  # noqa: S108 - sticky, everybody's: a session has what it made there
_MAX_OWNED = 400  # each holds a descriptor; what is made in a shared directory beyond that is asked for


class Authority:
    """Decides for one session. The engine is replaced as a whole by ``adopt``.

    ``backed``: Landlock stands behind what is left to the kernel, as far as this authority reaches and no further.
    """

    backed = True

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.engine = Engine(snapshot)
        self._secrets, self._signs = _secrets(snapshot), _connects(snapshot.signs)
        self._counters: dict[tuple[object, ...], float] = {}
        self.purse = Purse(snapshot.limits) if snapshot.limits else None
        self._owned: dict[tuple[int, int], int] = {}
        # Roots that Landlock was really given, per kind; and the tuple that startswith takes.
        self._files: set[str] = set()  # those of the roots that are no directories
        self.roots: dict[int, list[str]] = {READ: [], LIST: [], WRITE: []}
        self._prefixes: dict[int, tuple[str, ...]] = {READ: (), LIST: (), WRITE: ()}
        self._exact: dict[int, frozenset[str]] = {k: frozenset() for k in self.roots}

    def build_ruleset(self) -> landlock.Ruleset:
        """Return the Landlock rules of the snapshot, and remember the roots that they cover.

        Raises landlock.LandlockError when this kernel cannot.
        """
        # Not handled: EXECUTE (an exec needs READ_FILE as well, and that boundary holds) and IOCTL_DEV (a device that may
        # be opened may be used).
        ruleset = landlock.Ruleset(
            landlock.READ | landlock.WRITE | landlock.MAKE_CHAR | landlock.MAKE_BLOCK,
            0 if self.snapshot.net_all else landlock.ALL_NET,
        )
        for kind, rights in (
            (READ, landlock.READ_FILE),
            (LIST, landlock.READ_DIR),
            (WRITE, landlock.WRITE),
        ):
            for root in self._candidates(kind):
                if ruleset.allow(root, rights):
                    self.roots[kind].append(root)
            self._set_static(kind, self.roots[kind])
        for root in self._with_holes():
            if ruleset.allow(root, landlock.READ_FILE):
                self.roots[READ].append(
                    root
                )  # not uniform, so `_fits` will never say that reads are static
                self._set_static(READ, [])
        return ruleset

    def _fits(self, kind: int) -> bool:
        """Say whether the policy allows all that Landlock was given for ``kind``."""
        engine = self.engine
        for root in self.roots[kind]:
            if root in self._files:
                decision = engine.decide("write" if kind == WRITE else _NEEDS[kind][0], root)
                if decision.verdict or (decision.rule and (decision.rule.rate or decision.rule.window)):
                    return False
            elif any(engine.uniform(op, root) != model.ALLOW for op in _NEEDS[kind]):
                return False
        return True

    def _with_holes(self) -> list[str]:
        """Return the trees that may be read and run but for some places in them."""
        engine, found = self.engine, []
        for rule in self.snapshot.rules:
            root = rule.pattern[:-3]
            if rule.verdict or rule.op != "read" or not rule.pattern.endswith("/**") or not _literal(root):
                continue
            some = root + "/\x01neutral"
            if root.count("/") < 2 or root in found or root in self.roots[READ] or self.static(READ, root):
                continue
            if os.path.realpath(root) != root or not os.path.isdir(root):
                continue
            if not (engine.decide("read", some).verdict or engine.decide("execute", some).verdict):
                found.append(root)
        return found

    def _candidates(self, kind: int) -> list[str]:
        """Return the places that Landlock may be given for ``kind``, by their real paths."""
        engine, ops = self.engine, _NEEDS[kind]
        found = []
        for root in engine.static_roots(ops[-1], os.path.isdir):
            real = os.path.realpath(root)
            if all(engine.uniform(op, real) == model.ALLOW for op in ops):
                found.append(real)
        # Single files: devices, which nobody replaces. Of other files the name is brokered, whatever inode it has;
        # with fixed reads there is no broker, and the inode of now is granted.
        op = "write" if kind == WRITE else ops[0]
        fixed = kind == READ and self.snapshot.reads == "fixed"
        for path in self._named_files(op) if kind != LIST else ():
            if _is_device(path) or fixed:
                self._files.add(path)
                found.append(path)
        return found

    def _named_files(self, op: str) -> list[str]:
        """Return the files that allow rules name one by one, and that are there and simply allowed."""
        found = []
        for rule in self.snapshot.rules:
            if (
                rule.verdict
                or rule.op != op
                or rule.rate
                or rule.window
                or not _literal(rule.pattern, "{},")
            ):
                continue
            for path in expand(rule.pattern):
                if os.path.realpath(path) == path and os.path.exists(path) and not os.path.isdir(path):
                    decision = self.engine.decide(op, path)
                    if decision.verdict == model.ALLOW and decision.rule is rule:
                        found.append(path)
        return found

    def _set_static(self, kind: int, roots: list[str]) -> None:
        self._prefixes[kind] = tuple(r if r == "/" else r + "/" for r in roots)
        self._exact[kind] = frozenset(roots)

    def adopt(self, snapshot: Snapshot) -> None:
        """Put a new snapshot in force from now on. Raises what Engine raises, and then changes nothing."""
        engine, kept, signs = Engine(snapshot), _secrets(snapshot), _connects(snapshot.signs)
        self.engine, self.snapshot, self._secrets, self._signs = engine, snapshot, kept, signs
        if self.purse is not None:
            self.purse.adopt(snapshot.limits)
        elif snapshot.limits:
            self.purse = Purse(snapshot.limits)
        for kind, roots in self.roots.items():
            self._set_static(kind, roots if self._fits(kind) else [])

    @property
    def reads_static(self) -> bool:
        """Say whether any read may be left to the kernel: its string could then name anything that Landlock lets be
        read, which must be all allowed."""
        return bool(self._prefixes[READ])

    def static(self, kind: int, path: str) -> bool:
        """Say whether the kernel may be let access the real ``path`` itself."""
        return path.startswith(self._prefixes[kind]) or path in self._exact[kind]

    def decide(self, op: str, path: str, given: str | None = None) -> Decision:
        """Decide one operation on one real path; ``given`` is the path as the target wrote it, made absolute."""
        engine = self.engine
        decision = (
            engine.decide(op, path)
            if given is None or given == path
            else engine.decide_given(op, path, given)
        )
        return self._conditioned(decision)

    def decide_exec(self, exe: str, argv: list[str]) -> Decision:
        """Decide running ``exe`` with ``argv``."""
        return self._conditioned(self.engine.decide_exec(exe, argv))

    def _conditioned(self, decision: Decision) -> Decision:
        """Apply the deciding rule's rate and window. A use counts when it is decided: one that then fails was tried."""
        rule = decision.rule
        if rule is None or not (rule.rate or rule.window):
            return decision
        local = time.localtime()
        decision, spend = conditions(
            decision, self._counters, time.monotonic(), local.tm_hour * 60 + local.tm_min
        )
        if spend is not None:
            self._counters[spend[0]] = spend[1]
        return decision

    def has_secret(self, port: int) -> bool:
        """Say whether a secret is bound to ``port`` of this machine."""
        return self._secrets.decide("connect", hosts.join(hosts.LOCAL, port)).verdict == model.ALLOW

    def is_read(self, port: int) -> bool:
        """Say whether the gateway has to read what goes to ``port`` of this machine."""
        signed = self._signs.decide("connect", hosts.join(hosts.LOCAL, port)).verdict == model.ALLOW
        return self.engine.has_requests(hosts.LOCAL, port) or self.has_secret(port) or signed

    def neutral(self, path: str) -> bool:
        """Say whether the name at ``path`` means nothing to the policy: what is below it is decided as it would
        be below any other name there."""
        parent = path.rsplit("/", 1)[0] or "/"
        residual = self.engine.residual
        return residual(path) == residual(parent.rstrip("/") + "/\x01neutral")

    def own(self, parent: int, name: bytes) -> None:
        """Remember that the session made ``name`` in the shared directory behind ``parent``. Its descriptor is
        kept, so that the inode's number cannot come again as somebody else's."""
        if len(self._owned) >= _MAX_OWNED:
            return
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError:
            return
        st = os.fstat(fd)
        old = self._owned.setdefault((st.st_dev, st.st_ino), fd)
        if old != fd:
            os.close(fd)

    def disown(self, st: os.stat_result) -> None:
        """Forget an entry that the session removed."""
        fd = self._owned.pop((st.st_dev, st.st_ino), None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Let go of what the session made in shared directories."""
        for fd in self._owned.values():
            os.close(fd)
        self._owned.clear()

    def in_shared(self, path: str) -> bool:
        """Say whether ``path`` is inside a directory that everybody writes to."""
        return path.startswith(_SHARED)

    def owns(self, path: str) -> bool:
        """Say whether ``path`` is, or is below, an entry of a shared directory that the session made."""
        for shared in _SHARED:
            if path.startswith(shared):
                top = shared + path[len(shared) :].split("/", 1)[0]
                try:
                    st = os.lstat(top)
                except OSError:
                    return False
                return (st.st_dev, st.st_ino) in self._owned
        return False


def _secrets(snapshot: Snapshot) -> Engine:
    """Return an engine that allows a connect to where a secret is bound."""
    return _connects(tuple(host for secret in snapshot.secrets for host in secret.hosts))


def _connects(patterns: tuple[str, ...]) -> Engine:
    """Return an engine that allows a connect to what one of ``patterns`` names."""
    rules = (model.Rule(model.USER, model.ALLOW, "connect", host) for host in patterns)
    return Engine(model.Snapshot("", tuple(rules)))


def _literal(text: str, but: str = "") -> bool:
    return not (set("*?{},[]\\") - set(but)) & set(text)


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False
