"""``.git/config``, judged by what is in it.

git rewrites it at every ``init``, ``clone``, ``remote add`` and ``config``, by renaming ``config.lock`` onto it. Most of its keys
are data, some name programs that git will run for whoever uses the repository next. So a rewrite that brings no such
key is let through, and any other is decided as policy says.
"""

from __future__ import annotations

import stat

from remit_daemon.supervisor import rewrites

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from remit_daemon.supervisor.act import Effect
    from remit_daemon.supervisor.resolve import Place

_MAX = 1 << 18  # bytes; a bigger configuration is decided as policy says

# The keys that git documents as data alone (git-config(1)). Everything else counts as able to run something, so a key
# of a later git is asked about rather than let through. ``*`` stands for a subsection.
_DATA = frozenset(
    (
        "core.repositoryformatversion", "core.filemode", "core.bare", "core.logallrefupdates",
        "core.ignorecase", "core.precomposeunicode", "core.symlinks", "core.autocrlf", "core.eol",
        "core.safecrlf", "core.quotepath", "core.abbrev", "core.compression", "core.untrackedcache",
        "core.sparsecheckout", "core.sparsecheckoutcone", "core.longpaths", "core.commentchar",
        "core.whitespace", "core.preloadindex", "core.sharedrepository", "core.commitgraph",
        "init.defaultbranch", "user.name", "user.email", "user.signingkey", "author.name", "author.email",
        "committer.name", "committer.email", "branch.*.remote", "branch.*.merge", "branch.*.rebase",
        "branch.*.pushremote", "branch.*.description", "branch.*.vscode-merge-base",
        "branch.autosetupmerge", "branch.autosetuprebase",
        "pull.rebase", "pull.ff", "push.default", "push.autosetupremote", "push.followtags",
        "fetch.prune", "fetch.prunetags", "merge.ff", "merge.conflictstyle", "rebase.autostash",
        "rebase.autosquash", "rerere.enabled", "rerere.autoupdate", "color.ui", "advice.*",
        "commit.gpgsign", "tag.gpgsign", "gc.auto", "gc.autodetach", "maintenance.auto",
        "maintenance.strategy", "extensions.objectformat", "extensions.refstorage",
        "extensions.partialclone", "remote.*.fetch", "remote.*.push", "remote.*.mirror", "remote.*.prune",
        "remote.*.tagopt", "remote.*.promisor", "remote.*.partialclonefilter", "remote.*.skipfetchall",
        "remote.*.gh-resolved", "remote.pushdefault", "submodule.active", "submodule.*.active", "index.version",
        "feature.manyfiles", "status.showuntrackedfiles", "diff.renames", "diff.algorithm", "log.date",
        "log.showsignature", "lfs.repositoryformatversion",
    )
)  # fmt: skip
_URL_KEYS = ("remote.*.url", "remote.*.pushurl", "submodule.*.url")
_URL_STARTS = ("https://", "http://", "ssh://", "git://", "file://", "/", "./", "../")


def keys(text: str) -> list[tuple[str, str]] | None:
    """Return the (key, value) pairs of a git configuration, section and key in lower case, any subsection as ``*``.

    None when it is written in a way that git might read otherwise than we do: that is not judged.
    """
    section = ""
    found = []
    for line in text.split("\n"):
        line = line.strip(" \t\r")
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            head, close, rest = line[1:].partition("]")
            name, _, sub = head.partition(" ")
            if not close or rest.strip() or "\\" in head or not name.replace("-", "").isalnum():
                return None
            if sub and not (len(sub) > 2 and sub[0] == sub[-1] == '"' and '"' not in sub[1:-1]):
                return None
            section = name.lower() + (".*" if sub else "")
            continue
        name, equals, value = line.partition("=")
        name = name.strip().lower()
        if not section or not name.replace("-", "").isalnum() or line.endswith("\\"):
            return None
        found.append((f"{section}.{name}", value.strip() if equals else "true"))
    return found


def _harmless(key: str, value: str) -> bool:
    if key in _DATA or key.startswith("advice."):
        return True
    if key in _URL_KEYS:
        # ``ext::command`` and other ``helper::`` addresses run a program (gitremote-helpers(7)).
        return value.startswith(_URL_STARTS) or ("::" not in value and not value.startswith("-"))
    return False


def replaces(
    source: Place, goal: Place, st: os.stat_result, st2: os.stat_result | None
) -> Callable[[], Effect] | None:
    """Return how to put a checked copy of ``source`` in the place of ``goal``, when that is a git configuration being
    rewritten without a new key that may run something; else None."""
    if goal.name != b"config" or source.name != b"config.lock" or not stat.S_ISREG(st.st_mode):
        return None
    if goal.parent.path != source.parent.path or not goal.parent.path.endswith("/.git"):
        return None
    if st.st_size > _MAX or (st2 is not None and not stat.S_ISREG(st2.st_mode)):
        return None
    new = rewrites.read(source, _MAX)
    old = rewrites.read(goal, _MAX) if st2 is not None else b""
    if new is None or old is None:
        return None
    had = keys(old.decode("utf-8", "surrogateescape"))
    has = keys(new.decode("utf-8", "surrogateescape"))
    if has is None or not all(pair in (had or ()) or _harmless(*pair) for pair in has):
        return None
    return rewrites.copier(source, goal, new, stat.S_IMODE(st.st_mode))
