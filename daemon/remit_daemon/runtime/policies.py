"""The policy files as the daemon uses them: loaded, watched, and made into a session's snapshot.

Watching is comparing times and sizes: the files are few, and it is done only while somebody is there to notice.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from remit_daemon.broker.records import Session
from remit_daemon.runtime.store import Memory
from remit_daemon.wire.paths import Paths
from remit_policy.document import PolicyError
from remit_policy.layers import PolicyDirs, PolicySet, load
from remit_policy.match import escape
from remit_policy.model import DENY, FILE_OPS, GUARD, USER, Rule, Snapshot
from remit_policy.rules import asks_on_change, started_with
from remit_policy.scopes import RESOURCE

PROJECT_FILE = ".remit.toml"
MAX_PROJECT_FILE = 1 << 20  # bytes; a policy of this size is a fault
MAX_CLIENTS = 64  # programs outside sessions whose policy is remembered
_NO_FILE = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENXIO,
)  # nothing, a link, or a socket has the name
_WRITING = ("write", "create", "delete", "metadata")


class SnapshotRefused(Exception):
    """No snapshot can be made for a session; the text says which file is at fault, ``problems`` where."""

    def __init__(self, text: str, problems: list[dict[str, Any]]) -> None:
        super().__init__(text)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a snapshot is for: what a supervisor's hello says of its agent."""

    agent: str
    exe: str
    sha256: str
    project: str
    home: str
    tmpdir: str
    hold: int
    program: str = ""
    files: tuple[str, ...] = ()
    launch: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)


def problem_view(problem: object) -> dict[str, Any]:
    """Return a policy problem as ``status`` shows it."""
    return {
        "file": str(getattr(problem, "file", "")),
        "line": getattr(problem, "line", None) or 0,
        "column": getattr(problem, "column", None) or 0,
        "message": str(getattr(problem, "message", "") or problem),
    }


def digest_of(directory: str) -> str:
    """Return the SHA-256 of the project file in ``directory``, "" when there is none.

    Raises OSError when there is one, perhaps, that cannot be read now: what it forbids is then not known.
    """
    try:
        fd = os.open(
            os.path.join(directory, PROJECT_FILE),
            os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY,
        )
    except OSError as e:
        if e.errno not in _NO_FILE:
            raise
        return ""
    try:
        # A directory or a pipe in its place would end whoever reads it as a file.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        with open(fd, "rb", closefd=False) as f:
            data = f.read(MAX_PROJECT_FILE + 1)
    finally:
        os.close(fd)
    return "" if len(data) > MAX_PROJECT_FILE else hashlib.sha256(data).hexdigest()


def guard_rules(paths: Paths) -> list[Rule]:
    """Return the rules that close remit's own places to every agent, whatever a policy says."""
    rules: list[Rule] = []

    def close(pattern: str, ops: tuple[str, ...], excepts: tuple[str, ...] = ()) -> None:
        rules.extend(
            Rule(GUARD, DENY, op, pattern, excepts=excepts, source="remit: its own files") for op in ops
        )

    for place in (paths.config, paths.state):
        close(escape(_real(place)) + "/**", FILE_OPS)
    runtime = _real(paths.runtime)
    close(escape(runtime) + "/**", FILE_OPS)
    for name in ("control", "approver", "oauth", "deno"):
        close(escape(f"{runtime}/{name}.sock"), ("connect",))
    for place in sorted(code_places()):
        close(escape(place) + "/**", _WRITING)
    close(
        escape(_real(paths.config + "/policy.d")) + "/**", _WRITING
    )  # a link, where settings are kept elsewhere
    return rules


def policy_rules(files: Iterable[str]) -> list[Rule]:
    """Return the rules that close the policy ``files``, wherever they are, to writing: an agent does not make its own policy.

    Where one is a link, the snapshot closes what it leads to as well (``remit_policy.links``).
    """
    source = "remit: a policy in force"
    return [
        Rule(GUARD, DENY, op, escape(path), source=source)
        for path in dict.fromkeys(files)
        for op in _WRITING
    ]


def code_places() -> set[str]:
    """Return the directories that remit's code is run from, the virtual environment included."""
    import remit_daemon
    import remit_policy

    places = {
        os.path.dirname(os.path.realpath(m.__file__ or "/nonexistent/x"))
        for m in (remit_policy, remit_daemon)
    }
    if sys.prefix != sys.base_prefix:
        places.add(os.path.realpath(sys.prefix))
    return places


def import_places() -> set[str]:
    """Return the directories that running remit's code reads: those it lies in, which an import lists."""
    places = code_places()
    tui = importlib.util.find_spec("remit_tui")
    if tui is not None and tui.origin:
        places.add(os.path.dirname(os.path.realpath(tui.origin)))
    return places | {os.path.dirname(p) for p in places if os.path.basename(p).startswith("remit_")}


def _real(path: str) -> str:
    return os.path.realpath(path)


def policy_dirs(paths: Paths) -> PolicyDirs:
    """Return where policy files are: the administrator's and this user's."""
    return PolicyDirs(admin="/etc/remit/policy.d", user=paths.config + "/policy.d")


class Policies:
    """The policy in force. ``set`` is the last good one; ``problems`` what is wrong with the files as they are."""

    def __init__(self, paths: Paths, memory: Memory, dirs: PolicyDirs) -> None:
        self._memory = memory
        self.dirs = dirs
        self.guard = guard_rules(paths)
        self.set: PolicySet = load(dirs, None)
        self._seen = self._look(())
        self._clients: dict[tuple[str, str], Snapshot] = {}

    def reload(self) -> None:
        """Read the files again; what is broken leaves the last good policy in force."""
        self.set = load(self.dirs, self.set)
        self._clients.clear()

    def changed(self, extra: tuple[str, ...]) -> bool:
        """Tell whether a policy file, or one of ``extra``, is not as it was at the last call."""
        seen = self._look(extra)
        known, self._seen = self._seen, seen
        # A file that is watched from now on is no change.
        return (
            any(known.get(k, v) != v for k, v in seen.items())
            or any(k not in seen and k not in extra and not k.endswith(PROJECT_FILE) for k in known)
            or any(k not in known and k not in extra for k in seen)
        )

    def _look(self, extra: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for folder in self._folders():
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            for name in names:
                if name.endswith(".toml"):
                    found[f"{folder}/{name}"] = _stamp(f"{folder}/{name}")
        for path in extra:
            found[path] = _stamp(path)
        return found

    def _folders(self) -> list[str]:
        return [str(d) for d in (self.dirs.admin, self.dirs.user) if d]

    def name_of(self, exe: str, argv: list[str]) -> str:
        """Return the agent's name by the policy, or the program's when none matches."""
        return self.set.name(exe, argv)

    def problems(self) -> list[dict[str, Any]]:
        """Return what is wrong with the policy files, as ``status`` shows it."""
        return [problem_view(p) for p in self.set.problems]

    def withheld(self, subject: Subject) -> tuple[str, ...]:
        """Return the arguments that policy has for the agent's program, when another program is started in its place."""

        def found(program: str) -> tuple[str, ...]:
            s = subject
            return started_with(self.set.sources, s.agent, s.exe, s.sha256, s.variables, program)[0]

        return () if found(subject.program) else found(subject.agent)

    def asks_on_change(self, subject: Subject) -> bool:
        """Tell whether what was granted to ``subject``'s agent waits when its program has changed."""
        s = subject
        return asks_on_change(self.set.sources, s.agent, s.exe, s.variables)

    def snapshot(self, subject: Subject) -> Snapshot:
        """Return the snapshot for ``subject``, without grants. Raises SnapshotRefused."""
        project_file = None
        trusted = self._memory.trusted(subject.project)
        if trusted and self._digest(subject.project) == trusted:
            project_file = os.path.join(subject.project, PROJECT_FILE)
        try:
            made = self.set.snapshot(
                subject.agent,
                subject.exe,
                subject.sha256,
                subject.variables,
                program=subject.program,
                extra_files=list(subject.files),
                project_file=project_file,
                # An agent may ask remit what it was denied, so it may run the command.
                launch_dirs=[*subject.launch, *sorted(import_places())],
                guard=[*self.guard, *policy_rules([*self._own_files(), *subject.files])],
            )
        except PolicyError as e:
            problems = [problem_view(p) for p in e.problems]
            first = problems[0] if problems else {"file": "", "line": 0, "message": str(e)}
            raise SnapshotRefused(
                f"{first['file']}:{first['line']}: {first['message']}", problems
            ) from None
        if project_file is not None and self._digest(subject.project) != trusted:
            raise SnapshotRefused(f"{project_file} changed while it was read", [])
        if subject.hold > 0:
            made.hold = subject.hold / 1000
        return made

    @staticmethod
    def _digest(project: str) -> str:
        try:
            return digest_of(project)
        except OSError as e:
            raise SnapshotRefused(
                f"{project}/{PROJECT_FILE} is trusted and cannot be read: {e.strerror}", []
            ) from None

    def _own_files(self) -> list[str]:
        return [source.file for layer, source in self.set.sources if layer == USER]

    def of_client(self, agent: str, exe: str) -> Snapshot:
        """Return what policy says of the tokens of a program outside sessions that calls itself ``agent``.

        Raises SnapshotRefused.
        """
        made = self._clients.get((agent, exe))
        if made is None:
            hello: dict[str, Any] = {
                "exe": exe, "sha256": "", "project": "/nonexistent", "home": os.path.expanduser("~"), "cwd": "/", "tmpdir": "",
                "hold": 0, "argv": [], "policy": [], "launch": [],
            }  # fmt: skip
            rules = self.snapshot(subject(agent, hello)).rules
            made = Snapshot(
                agent, tuple(r for r in rules if r.op == "use" and r.pattern.startswith(RESOURCE))
            )
            while len(self._clients) >= MAX_CLIENTS:
                del self._clients[next(iter(self._clients))]
            self._clients[agent, exe] = made
        return made


def _stamp(path: str) -> tuple[int, ...]:
    try:
        st = os.stat(path)
    except OSError:
        return ()
    return (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def subject_of(session: Session) -> Subject:
    """Return whom ``session``'s snapshot is for, from what its supervisor said."""
    return subject(session.chain[0], session.hello)


def subject(agent: str, hello: dict[str, Any]) -> Subject:
    """Return the subject that ``hello`` describes, under the name ``agent``."""
    variables = {"HOME": hello["home"], "PROJECT": hello["project"], "CWD": hello["cwd"]}
    # Never the shared /tmp: what is below this is the session's own, all of it.
    variables["TMPDIR"] = hello["tmpdir"] or "/nonexistent"
    variables["XDG_CONFIG_HOME"] = os.environ.get("XDG_CONFIG_HOME") or hello["home"] + "/.config"
    variables["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or hello["home"] + "/.cache"
    variables["XDG_DATA_HOME"] = os.environ.get("XDG_DATA_HOME") or hello["home"] + "/.local/share"
    variables["XDG_STATE_HOME"] = os.environ.get("XDG_STATE_HOME") or hello["home"] + "/.local/state"
    variables["XDG_RUNTIME_DIR"] = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return Subject(
        agent, hello["exe"], hello["sha256"], hello["project"], hello["home"], hello["tmpdir"], hello["hold"],
        os.path.basename(hello["argv"][0]) if hello["argv"] else "", tuple(hello["policy"]), tuple(hello["launch"]), variables,
    )  # fmt: skip
