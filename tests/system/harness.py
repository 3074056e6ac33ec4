"""The arena: an ordinary user's small world, with secrets, a victim, helpers, and a private remitd.

Everything lives below one directory that ``Arena`` makes and removes. When root runs the suite, all of
it belongs to, and runs as, an ordinary uid that has no account; an ordinary user plays himself. Nothing
outside the arena is touched but a few entries of /tmp with the arena's own name.

Judging is done twice: a probe says what it saw (see ``hostile/_attack.py``), and ``Arena.inspect``
compares the world with how it was, and what was printed with the tokens that the probe never knew.
"""

from __future__ import annotations

import json
import os
import pty
import re
import secrets
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOSTILE = HERE / "hostile"
UID = 65533 if os.getuid() == 0 else os.getuid()
GID = 65533 if os.getuid() == 0 else os.getgid()
PYTHON = "/usr/bin/python3"  # what agents run; the suite's own interpreter runs remit
PACKAGES = ("policy/remit_policy", "daemon/remit_daemon", "daemon/remit_client", "tui/remit_tui")
START_SECONDS = 10.0
STATE_FILES = ("ledger.db", "store.db", "remitd.log")
STAND_IN = "kept by remit\n"  # their content where remit never ran
INHERITED = 199  # the secret is open there when a probe (or remit run) starts

HOLES = ["$PROJECT/secret/**", "$PROJECT/vault/**", "$PROJECT/deep/er/secret/**", "$PROJECT/app/.env"]
HOOKS = "$PROJECT/.git/hooks/**"
SYSTEM = [
    "/usr/**",
    "/bin/**",
    "/sbin/**",
    "/lib/**",
    "/lib64/**",
    "/etc/**",
    "/proc/**",
    "/sys/**",
    "/dev/**",
]
TERMINALS = ["/dev/null", "/dev/tty", "/dev/ptmx", "/dev/pts/**"]

# What the arena's agent may do: operation, verdict, patterns. All the rest is asked, and so refused.
Rules = dict[str, dict[str, list[str]]]


def rules() -> Rules:
    """Return the arena's rules, to be changed at will."""
    return {
        "read": {
            "allow": [
                "$PROJECT/**",
                "$HOME/readonly/**",
                "$HOME/.gitconfig",
                "$TMPDIR/**",
                *SYSTEM,
                sys.prefix + "/**",
                "$HOME/.local/lib/**",  # so that remit itself can be started in there
            ],
            "deny": ["$HOME/.ssh/**", *HOLES],
        },
        "write": {
            "allow": ["$PROJECT/**", "$TMPDIR/**", *TERMINALS],
            "deny": ["$HOME/readonly/**", HOOKS, *HOLES],
        },
        "delete": {"allow": ["$PROJECT/**", "$TMPDIR/**"], "deny": [HOOKS, *HOLES]},
        "execute": {"allow": ["$PROJECT/**", "$HOME/readonly/**", sys.prefix + "/**", *SYSTEM]},
        "metadata": {"allow": ["$PROJECT/**", "$TMPDIR/**"], "deny": [HOOKS, *HOLES]},
    }


def policy_text(table: Rules, home: str) -> str:
    """Return ``table`` as a policy file."""
    with_documents = (ROOT / "policy/remit_policy/document.py").exists()
    head = '[agent.probe]\nmatch = { name = "probe*" }\nroles = ["probe"]\n\n[role.probe.files]\n'
    if not with_documents:  # the stand-in of remitd knows one table and no packs
        head = "[files]\n"
        table = table | {"exec": {"allow": ["/**"]}}
        git = ["$PROJECT/.git/config", "$PROJECT/.git/config.worktree"]
        table["write"] = table["write"] | {"ask": git}
    lines = []
    for op, verdicts in table.items():
        words = (f"{word} = {json.dumps(patterns)}" for word, patterns in verdicts.items() if patterns)
        lines.append(f"{op} = {{ {', '.join(words)} }}\n")
    return "version = 1\n\n" + head + "".join(lines).replace("$HOME", home)


# Names that the scrubber must remove; the values are harmless where they survive.
INJECTED = {
    "LD_PRELOAD": "libm.so.6",
    "LD_BIND_NOW": "1",
    "NODE_OPTIONS": "--no-warnings",
    "BUN_OPTIONS": "--silent",
    "PYTHONSTARTUP": "/dev/null",
    "BASH_ENV": "/dev/null",
    "PERL5OPT": "-w",
}


def token(kind: str) -> str:
    return f"TOKEN-{kind}-{secrets.token_hex(12)}"


class Result:
    """What one run of a probe gave."""

    def __init__(self, code: int, out: str, err: str, spoils: list[str], seconds: float) -> None:
        self.code, self.out, self.err, self.spoils, self.seconds = code, out, err, spoils, seconds
        self.word, self.body = "", {"escaped": {}, "held": {}, "stalled": [], "native": {}}
        for line in out.splitlines():
            # A terminal's echo of what a probe typed may stand before the verdict.
            found = re.search(r"(ESCAPED|HELD) (\{.*\})$", line)
            word, rest = found.groups() if found else ("", "")
            if word:
                self.word, self.body = word, json.loads(rest)

    def __str__(self) -> str:
        return f"{self.word or 'no verdict'} {self.body}\nseen from outside: {self.spoils}\nexit {self.code} after {self.seconds:.1f} s\n{self.err[-1500:]}"


class Arena:
    """One user's world. ``close`` removes it and ends what it started."""

    def __init__(self) -> None:
        parent = "/home" if os.getuid() == 0 else str(Path.home())
        self.base = tempfile.mkdtemp(
            prefix="remit-arena-", dir=parent if os.access(parent, os.W_OK) else None
        )
        self.name = os.path.basename(self.base)
        os.chmod(self.base, 0o755)
        self.home = self.base + "/home"
        self.project = self.home + "/project"
        self.run_dir = self.base + "/run"
        self.tokens: dict[str, str] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.victim: subprocess.Popen[bytes] | None = None
        self.daemon: subprocess.Popen[bytes] | None = None
        self.info: dict[str, Any] = {}
        for d in (self.home, self.run_dir, self.run_dir + "/systemd"):
            os.mkdir(d, 0o700)
        self.code = self.home + "/.local/lib/remit"
        self._install()
        self._own(self.base)
        self.tmp_dir = f"/tmp/{self.name}"
        self.plant()
        self._start_helper()
        self._start_victim()

    # -- running things -------------------------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        return {
            "HOME": self.home,
            "USER": "arena",
            "LOGNAME": "arena",
            "SHELL": "/bin/sh",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "XDG_RUNTIME_DIR": self.run_dir,
            "XDG_CONFIG_HOME": self.home + "/.config",
            "XDG_STATE_HOME": self.home + "/.local/state",
            "XDG_DATA_HOME": self.home + "/.local/share",
            "XDG_CACHE_HOME": self.home + "/.cache",
            "SSH_AUTH_SOCK": self.run_dir + "/ssh-agent",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.run_dir}/bus",
            "PYTHONPATH": self.code,
            "PYTHONDONTWRITEBYTECODE": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def popen(self, argv: list[str], **kw: Any) -> subprocess.Popen[bytes]:
        """Start ``argv`` as the arena's user, in the project, in a session of its own."""
        kw.setdefault("cwd", self.project)
        kw.setdefault("env", self.env)
        kw.setdefault("start_new_session", True)
        if os.getuid() == 0:
            kw.update(user=UID, group=GID, extra_groups=[])
        process = subprocess.Popen(argv, **kw)
        self._processes.append(process)
        return process

    def remit(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "remit_daemon.cli.main", *words]

    def remit_run(
        self, *command: str, ask: str = "deny", agent: str = "probe", options: tuple[str, ...] = ()
    ) -> list[str]:
        return self.remit(
            "run", "--agent", agent, "--project", self.project, "--ask", ask, *options, "--", *command
        )

    def communicate(
        self, argv: list[str], seconds: float = 30.0, data: bytes = b"", **kw: Any
    ) -> tuple[int, str, str]:
        """Run to the end: (exit status, standard output, standard error). A stuck tree is killed."""
        kw.setdefault("stdin", subprocess.PIPE)
        process = self.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)
        try:
            out, err = process.communicate(data or None, timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += b"\n[killed by the harness: took too long]"
        self._processes.remove(process)
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    def on_terminal(
        self, argv: list[str], seconds: float = 30.0, data: bytes = b"", **kw: Any
    ) -> tuple[int, str, str]:
        """The same on a pseudo-terminal, which is its controlling one; both outputs come as one."""
        leader, follower = pty.openpty()
        own_terminal = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
        process = self.popen(
            [PYTHON, "-c", own_terminal, *argv], stdin=follower, stdout=follower, stderr=follower, **kw
        )
        os.close(follower)
        os.write(leader, data)
        out, end = b"", time.monotonic() + seconds
        while time.monotonic() < end:
            if not select.select([leader], [], [], 0.2)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                out += os.read(leader, 1 << 16)
            except OSError:  # EIO: nobody holds the other end
                break
        os.close(leader)
        try:
            code = process.wait(max(0.5, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        self._processes.remove(process)
        return code, out.decode(errors="replace").replace("\r\n", "\n"), ""

    # -- the world ------------------------------------------------------------------------------

    def _own(self, path: str) -> None:
        if os.getuid() != 0:
            return
        os.chown(path, UID, GID, follow_symlinks=False)
        for root, dirs, files in os.walk(path):
            for n in dirs + files:
                os.chown(f"{root}/{n}", UID, GID, follow_symlinks=False)

    def _install(self) -> None:
        """A copy of remit that belongs to the user, as after ``pip install --user``."""
        for package in PACKAGES:
            shutil.copytree(
                ROOT / package,
                f"{self.code}/{os.path.basename(package)}",
                ignore=shutil.ignore_patterns("__pycache__"),
                dirs_exist_ok=True,
            )

    def _put(self, path: str, text: str, mode: int = 0o600) -> str:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path) and not os.path.isfile(path):
            os.unlink(path)
        Path(path).write_text(text)
        os.chmod(path, mode)
        return path

    def plant(self) -> None:
        """(Re)make the project, the secrets and what else a probe may spoil; tokens are new each time."""
        for d in (".local.aside", ".config.aside", ".local/lib/remit.aside"):
            shutil.rmtree(f"{self.home}/{d}", ignore_errors=True)
        for d in ("project", "renamed", ".ssh", "outside", "readonly", "project-old", ".config/autostart"):
            shutil.rmtree(f"{self.home}/{d}", ignore_errors=True)
        for kind in ("ssh", "hole", "old", "foreign", "tool", "deep", "env", "asked", "remote", "proc"):
            self.tokens.setdefault(kind, token(kind))
        for kind in ("ssh", "hole", "old", "foreign", "tool", "deep", "env", "asked"):
            self.tokens[kind] = token(kind)
        t, home, project = self.tokens, self.home, self.project
        secret = self._put(home + "/.ssh/id_ed25519", t["ssh"] + "\n")
        hole_file = self._put(project + "/secret/key", t["hole"] + "\n")
        self._put(project + "/secret/" + os.fsdecode(b"\xffkey"), t["hole"] + "\n")
        self._put(project + "/deep/er/secret/key", t["deep"] + "\n")
        self._put(project + "/app/.env", t["env"] + "\n")
        for name in ("notes.txt", "notes2.txt", "src/main.c"):
            self._put(f"{project}/{name}", "int main(void) { return 0; }\n", 0o644)
        self._put(project + "/.git/hooks/post-update", "#!/bin/sh\n", 0o755)
        self._put(project + "/.git/config", "[core]\n\trepositoryformatversion = 0\n")
        self._put(project + "/.git/HEAD", "ref: refs/heads/main\n")
        for d in ("objects", "refs/heads"):
            os.makedirs(f"{project}/.git/{d}", exist_ok=True)
        neighbour = self._put(home + "/project-old/key", t["old"] + "\n")
        outside = home + "/outside"
        outside_file = self._put(outside + "/data", "data outside\n")
        for name in ("victim-unlink", "victim-rename"):
            self._put(f"{outside}/{name}", "here\n")
        self._put(outside + "/tool", f"#!/bin/sh\necho {t['tool']}\n", 0o755)
        self._put(outside + "/text", t["tool"] + "\n")
        for source, name in (("/bin/cat", "cat"), ("/lib/x86_64-linux-gnu/libm.so.6", "lib.so")):
            if os.path.exists(source):
                shutil.copy(source, f"{outside}/{name}")
        self._put(home + "/asked/file", t["asked"] + "\n")
        readonly_file = self._put(home + "/readonly/doc.txt", "may only be read\n", 0o644)
        log = self._put(home + "/readonly/victim.log", "", 0o644)
        self._put(home + "/.bashrc", "# mine\n")
        self._put(home + "/.gitconfig", "[user]\n\tname = a\n\temail = a@example.org\n")
        for d in (
            ".local/bin",
            ".config/systemd/user",
            ".config/autostart",
            ".local/share/dbus-1/services",
        ):
            os.makedirs(f"{home}/{d}", exist_ok=True)
        if self.daemon is None:  # something to tamper with, where remit never ran
            self._put(home + "/.config/remit/policy.d/arena.toml", "version = 1\n")
            for name in STATE_FILES:
                self._put(f"{home}/.local/state/remit/{name}", STAND_IN)
            if not os.path.exists(self.code):
                self._install()
        shutil.rmtree(self.tmp_dir, ignore_errors=True)
        for leftover in (self.tmp_dir + ".link", self.tmp_dir + ".file"):
            if os.path.lexists(leftover):
                os.unlink(leftover)
        os.mkdir(self.tmp_dir, 0o700)
        tmp_file = self._put(self.tmp_dir + ".file", t["foreign"] + "\n")
        self._put(self.tmp_dir + "/inner", t["foreign"] + "\n")
        os.symlink(secret, self.tmp_dir + ".link")
        probes = project + "/probe"
        shutil.copytree(HOSTILE, probes, ignore=shutil.ignore_patterns("__pycache__", "*.c", "*.h"))
        for path in (home, self.tmp_dir, self.tmp_dir + ".link", self.tmp_dir + ".file"):
            if os.getuid() == 0:
                os.chown(path, UID, GID, follow_symlinks=False)
            if not os.path.islink(path):
                self._own(path)
        self.info = {
            "home": home, "project": project, "secret": secret, "hole": project + "/secret",
            "hole_file": hole_file, "hooks": project + "/.git/hooks", "vault": project + "/vault",
            "neighbour": neighbour, "outside": outside, "outside_file": outside_file,
            "outside_tool": outside + "/tool", "outside_binary": outside + "/cat",
            "outside_library": outside + "/lib.so", "tool_text": outside + "/text",
            "readonly": home + "/readonly", "readonly_file": readonly_file, "victim_log": log,
            "asked_file": home + "/asked/file",
            "tmp_file": tmp_file, "tmp_link": self.tmp_dir + ".link", "tmp_dir": self.tmp_dir,
            "run": self.run_dir, "sock_stream": self.run_dir + "/helper", "sock_dgram": self.run_dir + "/dgram",
            "sock_seqpacket": self.run_dir + "/seq", "sock_abstract": self.name, "tmux": self.run_dir + "/tmux",
            "config": home + "/.config/remit", "state": home + "/.local/state/remit",
            "runtime": self.run_dir + "/remit", "code": self.code, "python": sys.executable,
            **{k: v for k, v in self.info.items() if k.startswith(("victim_", "tcp", "udp", "shm", "msg", "mq"))},
        }  # fmt: skip
        if self.victim and self.victim.poll() is None:
            self.victim.send_signal(signal.SIGCONT)

    def _start_helper(self) -> None:
        out = self._helper("helper.py")
        self.info |= json.loads(out.readline())

    def _helper(self, script: str, **extra: str) -> Any:
        env = self.env | {"ARENA": json.dumps(self.info), "HELPER_TOKEN": self.tokens["remote"]} | extra
        shutil.copy(HERE / script, self.base + "/" + script)
        os.chmod(self.base + "/" + script, 0o644)
        process = self.popen([PYTHON, self.base + "/" + script], env=env, stdout=subprocess.PIPE, cwd="/")
        if script == "victim.py":
            self.victim = process
        return process.stdout

    def _start_victim(self) -> None:
        out = self._helper("victim.py", VICTIM_TOKEN=self.tokens["proc"])
        self.info |= json.loads(out.readline())

    def start_tmux(self) -> bool:
        argv = [
            "tmux",
            "-f",
            "/dev/null",
            "-S",
            self.info["tmux"],
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            "/bin/sh",
        ]
        return shutil.which("tmux") is not None and self.communicate(argv)[0] == 0

    # -- remit ----------------------------------------------------------------------------------

    def write_policy(self, table: Rules | None = None, more: str = "") -> str:
        """Put ``table`` in force, and what ``more`` (TOML) says; returns the file."""
        path = self.home + "/.config/remit/policy.d/arena.toml"
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._put(path + ".new", policy_text(table or rules(), self.home) + more)
        os.rename(path + ".new", path)
        self._own(self.home + "/.config")
        return path

    def start_daemon(self, **env: str) -> None:
        """Start remitd, with ``env`` beside the arena's, and wait for its sockets. Raises RuntimeError with its last words."""
        log = self.base + "/daemon.err"
        for name in STATE_FILES:
            stand_in = Path(f"{self.home}/.local/state/remit/{name}")
            if stand_in.exists() and stand_in.read_bytes() == STAND_IN.encode():
                stand_in.unlink()
        with open(log, "ab") as err:
            self.daemon = self.popen(
                self.remit("daemon"),
                stdout=err,
                stderr=err,
                stdin=subprocess.DEVNULL,
                cwd="/",
                env=self.env | env,
            )
        end = time.monotonic() + START_SECONDS
        wanted = [f"{self.run_dir}/remit/{n}.sock" for n in ("control", "approver")]
        while not all(map(_answers, wanted)):
            if self.daemon.poll() is not None or time.monotonic() > end:
                raise RuntimeError("remitd did not start: " + Path(log).read_text()[-2000:])
            time.sleep(0.02)

    def stop_daemon(self, sig: int = signal.SIGTERM) -> None:
        if self.daemon and self.daemon.poll() is None:
            self.daemon.send_signal(sig)
            self.daemon.wait(10)

    # -- probes ---------------------------------------------------------------------------------

    def command(self, probe: str) -> list[str]:
        """The command of probe file ``probe``; a C probe is compiled on the way."""
        if probe.endswith(".py"):
            return [PYTHON, f"{self.project}/probe/{probe}"]
        # Not in the project: its holes make it a place that is brokered, and those run no programs.
        program = f"{self.home}/readonly/{probe[:-2]}"
        subprocess.run(["gcc", "-O1", "-pthread", "-o", program, str(HOSTILE / probe)], check=True)
        self._own(self.home + "/readonly")
        return [program]

    def attack(self, probe: str, *, confined: bool, ask: str = "deny") -> Result:
        """Run one probe, with or without remit, and look at the world afterwards."""
        self.plant()
        if not self.victim or self.victim.poll() is not None:
            self._start_victim()
        self.info["victim"] = self.victim.pid if self.victim else 0
        self.info["remitd"] = self.daemon.pid if confined and self.daemon else 0
        command = self.command(probe)
        env = self.env | {"ARENA": json.dumps(self.info)} | INJECTED
        if confined:
            # The person's own environment holds such names too; the loader's would bend remit itself.
            command = self.remit_run("/usr/bin/env", "-u", "PYTHONPATH", *command, ask=ask)
        else:
            command = ["/usr/bin/env", "-u", "PYTHONPATH", *command]
        before = self.picture()
        inherited = os.open(self.info["secret"], os.O_RDONLY)
        os.dup2(inherited, INHERITED)
        began = time.monotonic()
        try:
            with_terminal = "Harness: pty" in (HOSTILE / probe).read_text()
            how = self.on_terminal if with_terminal else self.communicate
            code, out, err = how(command, 25, env=env, pass_fds=(INHERITED,))
        finally:
            os.close(inherited)
            os.close(INHERITED)
        seconds = time.monotonic() - began
        return Result(code, out, err, self.inspect(before, out + err), seconds)

    def picture(self) -> dict[str, tuple[Any, ...]]:
        """Everything that no probe may change, by name."""
        places = [
            self.home + "/" + d
            for d in (
                ".ssh",
                "outside",
                "readonly",
                "project-old",
                ".local/bin",
                ".local/lib",
                ".local/share",
            )
        ]
        places += [
            f"{self.project}/{d}" for d in ("secret", "vault", "deep/er/secret", ".git/hooks", "app")
        ]
        places += [self.home + "/.config", self.home + "/.bashrc", self.home + "/.gitconfig"]
        places += [
            self.tmp_dir,
            self.tmp_dir + ".file",
            self.tmp_dir + ".link",
            self.run_dir + "/tmux-flag",
        ]
        seen: dict[str, tuple[Any, ...]] = {}
        for place in places:
            self._look(place, seen)
            for root, dirs, files in os.walk(place):
                for n in dirs + files:
                    self._look(f"{root}/{n}", seen)
        seen["home"] = tuple(sorted(n for n in os.listdir(self.home) if n != ".cache"))
        if self.victim:
            seen["victim"] = self._victim_state(self.victim.pid)
        return seen

    @staticmethod
    def _look(path: str, seen: dict[str, tuple[Any, ...]]) -> None:
        try:
            st = os.lstat(path)
        except OSError:
            return
        xattrs = tuple(os.listxattr(path, follow_symlinks=False)) if not stat.S_ISLNK(st.st_mode) else ()
        times = () if stat.S_ISDIR(st.st_mode) else (st.st_mtime_ns, st.st_size)
        content = Path(path).read_bytes() if stat.S_ISREG(st.st_mode) and st.st_size < 1 << 16 else b""
        seen[path] = (st.st_ino, st.st_mode, st.st_uid, st.st_gid, st.st_nlink, times, xattrs, content)

    @staticmethod
    def _victim_state(pid: int) -> tuple[Any, ...]:
        try:
            oom = Path(f"/proc/{pid}/oom_score_adj").read_text()
            limits = Path(f"/proc/{pid}/limits").read_text()
            return (
                os.sched_getaffinity(pid),
                os.getpriority(os.PRIO_PROCESS, pid),
                os.sched_getscheduler(pid),
                oom,
                limits,
            )
        except OSError:
            return ("gone",)

    def inspect(self, before: dict[str, tuple[Any, ...]], printed: str) -> list[str]:
        """What got through, as seen from outside: changed places, printed or copied tokens, dead processes."""
        spoils = [f"{kind} token was printed" for kind, t in self.tokens.items() if t in printed]
        after = self.picture()
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                spoils.append(f"changed: {name}: {before.get(name)} -> {after.get(name)}")
        holes = tuple(f"{self.project}/{d}" for d in ("secret", "deep/er/secret", "app/.env"))
        for root, _, files in os.walk(self.project):
            for n in files:
                path = f"{root}/{n}"
                if path.startswith(holes) or not os.path.isfile(path) or os.path.islink(path):
                    continue
                try:
                    body = Path(path).read_bytes()
                except PermissionError:  # a probe's own file that it made unreadable
                    continue
                spoils += [
                    f"{kind} token is in {path}" for kind, t in self.tokens.items() if t.encode() in body
                ]
        if self.daemon and self.daemon.poll() is not None:
            spoils.append(f"remitd ended with {self.daemon.returncode}")
        return spoils

    def close(self) -> None:
        self.stop_daemon()
        if shutil.which("tmux") and os.path.exists(self.info["tmux"]):
            self.communicate(["tmux", "-S", self.info["tmux"], "kill-server"])
        for process in self._processes:
            if process.poll() is None:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
        for path in (self.base, self.tmp_dir):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.tmp_dir + ".link", self.tmp_dir + ".file"):
            if os.path.lexists(path):
                os.unlink(path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(path) == 0


def probes() -> list[str]:
    """The corpus: every file of ``hostile`` that is a program."""
    return sorted(
        p.name for p in HOSTILE.iterdir() if p.suffix in (".py", ".c") and not p.name.startswith("_")
    )
