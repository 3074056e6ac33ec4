"""Where remit keeps its things, from the environment (XDG base directories)."""

from __future__ import annotations

import os
import stat


class PathsError(Exception):
    """A directory that remit needs is missing or not the user's own."""


class Paths:
    """The three roots; everything else is below them. Absolute, not necessarily existing."""

    __slots__ = ("config", "runtime", "state")

    def __init__(self, config: str, state: str, runtime: str) -> None:
        self.config = config
        self.state = state
        self.runtime = runtime

    @property
    def control(self) -> str:
        return self.runtime + "/control.sock"

    @property
    def approver(self) -> str:
        return self.runtime + "/approver.sock"

    @property
    def agent(self) -> str:
        return self.runtime + "/agent.sock"

    @property
    def oauth(self) -> str:
        return self.runtime + "/oauth.sock"

    @property
    def deno(self) -> str:
        return self.runtime + "/deno.sock"

    @property
    def spool(self) -> str:
        return self.state + "/spool"

    @property
    def ledger(self) -> str:
        return self.state + "/ledger.db"

    @property
    def store(self) -> str:
        return self.state + "/store.db"

    @property
    def hashes(self) -> str:
        return self.state + "/hashes"

    @property
    def lock(self) -> str:
        return self.runtime + "/remitd.lock"  # held by the daemon that runs

    @property
    def log(self) -> str:
        return self.state + "/remitd.log"


def _absolute(value: str | None) -> str:
    # The XDG specification: a relative path in these variables is to be ignored.
    return value if value and value.startswith("/") else ""


def find(environ: dict[str, str] | None = None) -> Paths:
    """Return remit's directories for this user; creates nothing."""
    env = os.environ if environ is None else environ
    home = _absolute(env.get("HOME")) or _passwd_home()
    config = _absolute(env.get("XDG_CONFIG_HOME")) or home + "/.config"
    state = _absolute(env.get("XDG_STATE_HOME")) or home + "/.local/state"
    runtime = _absolute(env.get("XDG_RUNTIME_DIR"))
    if not runtime or not os.path.isdir(runtime):
        runtime = f"/run/user/{os.getuid()}"
    if not os.access(runtime, os.W_OK | os.X_OK):
        return Paths(config + "/remit", state + "/remit", state + "/remit/run")
    return Paths(config + "/remit", state + "/remit", runtime + "/remit")


def _passwd_home() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_dir


def make_private(path: str) -> None:
    """Create directory ``path`` (and its parents) with mode 0700, or check that it is ours alone.

    Raises PathsError when it is not a directory, not ours, or others may enter it.
    """
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        st = os.lstat(path)
    except OSError as e:
        raise PathsError(f"cannot create {path}: {e.strerror}") from None
    if not stat.S_ISDIR(st.st_mode) or st.st_uid != os.getuid():
        raise PathsError(f"{path} is not a directory of yours")
    if st.st_mode & 0o077:
        os.chmod(path, 0o700)
