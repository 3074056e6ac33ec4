"""Trailers on the commits that are made in a session: who assisted, and in which session.

git has no setting that adds a trailer, but hooks that may (githooks(5)), and one that says where hooks are. The session's
environment points it to hooks of ours, each of which first runs the repository's own of that name, wherever its configuration has
it. Author and committer stay as they are. Who takes this away (another ``core.hooksPath``, plumbing, a library) makes commits
without trailers, which the ledger then says of them (``runtime.gitobjects``): the hooks are a courtesy to readers, the ledger is the record.
"""

from __future__ import annotations

import os

# What git runs in a repository that somebody works in (githooks(5)); those of a server are among them, since
# a push into a directory of this machine makes git one.
HOOKS = (
    "applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit", "prepare-commit-msg", "commit-msg",
    "post-commit", "pre-rebase", "post-checkout", "post-merge", "pre-push", "pre-receive", "update", "proc-receive", "post-receive",
    "post-update", "reference-transaction", "push-to-checkout", "pre-auto-gc", "post-rewrite", "sendemail-validate",
    "p4-changelist", "p4-prepare-changelist", "p4-post-changelist", "p4-pre-submit", "post-index-change",
)  # fmt: skip
_COUNT = "GIT_CONFIG_COUNT"  # git-config(1), since 2.31: so many pairs of GIT_CONFIG_KEY_n and GIT_CONFIG_VALUE_n

# ``own`` is where git would look without us. With no message yet, an editor follows: a trailer then would make an empty message one
# that is not, so it is added after.
_SCRIPT = f"""\
#!/bin/sh
name=${{0##*/}}
own=$({_COUNT}=%d git rev-parse --git-path hooks)/$name
case $name in
prepare-commit-msg | commit-msg) [ ! -x "$own" ] || "$own" "$@" || exit ;;
*) [ -x "$own" ] && exec "$own" "$@"; exit 0 ;;
esac
[ "$name" = commit-msg ] || [ "$2" ] || exit 0
exec git interpret-trailers --in-place --no-divider --if-exists addIfDifferent --trailer "Assisted-by: %s" \\
    --trailer "Remit-Session: %s" "$1"
"""


def make(directory: str, env: dict[str, str], agent: str, session: str) -> dict[str, str]:
    """Make the hooks in ``directory``, which is made; return the variables that point git to them.

    ``env`` is the session's environment so far. Nothing is made, and nothing returned, where it cannot be: the agent then
    commits without trailers.
    """
    count = env.get(_COUNT, "") or "0"
    if not count.isdigit() or not all(c.isalnum() or c in "._- " for c in agent + session):
        return {}
    n = int(count)
    try:
        os.mkdir(directory, 0o700)
        fd = os.open(directory + "/run", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
        try:
            os.write(fd, (_SCRIPT % (n, agent, session)).encode())
        finally:
            os.close(fd)
        for name in HOOKS:
            os.link(
                directory + "/run", f"{directory}/{name}"
            )  # one file: as many symbolic links take 3 ms to make
    except OSError:
        return {}
    return {_COUNT: str(n + 1), f"GIT_CONFIG_KEY_{n}": "core.hooksPath", f"GIT_CONFIG_VALUE_{n}": directory}
