"""Kinds of files, by the packs' own list and by name."""

from __future__ import annotations

import pytest

from remit_policy.engine import Engine
from remit_policy.kinds import KINDS, kind_of
from remit_policy.layers import PolicyDirs, load
from remit_policy.model import Snapshot

HOME, PROJECT = "/home/u", "/home/u/work"
VARIABLES = {
    "HOME": HOME, "PROJECT": PROJECT, "TMPDIR": "/tmp/s", "XDG_CONFIG_HOME": HOME + "/.config", "XDG_RUNTIME_DIR": "/run/user/1",
    "XDG_STATE_HOME": HOME + "/.local/state", "XDG_DATA_HOME": HOME + "/.local/share", "XDG_CACHE_HOME": HOME + "/.cache",
}  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Engine:
    snapshot: Snapshot = load(PolicyDirs(admin="", user="")).snapshot("any", "", "", VARIABLES)
    return Engine(snapshot)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("~/.ssh/id_ed25519", "key"),
        ("~/.ssh/work.key", "key"),
        ("~/.ssh/known_hosts", "credential"),
        ("~/.gnupg/private-keys-v1.d/x", "key"),
        ("~/backup/id_rsa", "key"),
        ("~/.aws/credentials", "credential"),
        ("~/.mozilla/firefox/x/logins.json", "credential"),
        ("$P/.env", "credential"),
        ("$P/.env.local", "credential"),
        ("~/.bash_history", "history"),
        ("~/.bashrc", "later"),
        ("$P/.git/hooks/pre-commit", "later"),
        ("~/.config/autostart/x.desktop", "later"),
        ("$P/server.pem", "key"),
        ("$P/a.py", "source"),
        ("$P/pyproject.toml", "config"),
        ("$P/README.md", "document"),
        ("$P/x.csv", "data"),
        ("$P/run.sh", "program"),
        ("$P/.hidden", "file"),
        ("$P/Makefile", "file"),
        ("~/passwords.txt", "credential"),
        ("~/old/google-credentials.json", "credential"),
        ("~/wallet.dat", "credential"),
        ("~/API_tokens", "credential"),
        ("$P/token.py", "source"),
        ("$P/secrets.md", "document"),
        ("$P/tokenizer.json", "data"),
    ],
)
def test_kinds(engine: Engine, path: str, kind: str) -> None:
    real = path.replace("~", HOME).replace("$P", PROJECT)
    matches = [rule for op in ("read", "write") for rule in engine.explain(op, real).matches]
    assert kind_of(real, matches) == kind
    assert kind in KINDS
