"""``.claude.json``, which is Claude Code's state and its settings in one file.

It is rewritten at every start, by renaming ``.claude.json.tmp.…`` onto it: how often it was started, what was seen. Beside
these stand the servers that it starts, the tools that it may use unasked, and whom it trusts. A rewrite that brings
nothing new of those goes through; any other is decided as policy says. Trusting the session's own project is its
start, and the person was asked by Claude itself.
"""

from __future__ import annotations

import stat

from remit_daemon.supervisor import rewrites

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any

    from remit_daemon.supervisor.act import Effect
    from remit_daemon.supervisor.resolve import Place

_NAME, _NEW = b".claude.json", b".claude.json.tmp."
_MAX = 8 << 20  # bytes; old versions keep histories in it. A bigger one is decided as policy says
_TRUST = "hasTrustDialogAccepted"
# At any depth, since what is so named in a project's part means the same there. What Claude Code's documentation of its
# settings calls permissions, hooks, servers, and programs; ``__proto__`` is none of them but could become any.
_SAFETY = frozenset(
    (
        "mcpServers", "allowedTools", "enabledMcpjsonServers", "enableAllProjectMcpServers", "bypassPermissionsModeAccepted",
        "hasClaudeMdExternalIncludesApproved", "hasClaudeMdExternalIncludesWarningShown", "permissions", "hooks", "env",
        "apiKeyHelper", "awsAuthRefresh", "awsCredentialExport", "otelHeadersHelper", "statusLine", "sandbox",
        "additionalDirectories", "enabledPlugins", "extraKnownMarketplaces", "skipDangerousModePermissionPrompt", _TRUST,
        "__proto__",
    )
)  # fmt: skip


class _Context:
    """How the scanner reads numbers and objects: as JSON has them, and nothing more."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = float

    @staticmethod
    def parse_constant(text: str) -> float:
        raise ValueError(f"{text} is not JSON")


def safety(raw: bytes) -> dict[tuple[str, ...], Any] | None:
    """Return what in the state ``raw`` is about safety: place → value, without what is empty. None: it is not JSON."""
    from _json import make_scanner

    try:
        text = raw.decode().strip(" \t\r\n")
        context: Any = _Context()
        value, end = make_scanner(context)(text, 0)
        if end != len(text) or not isinstance(value, dict):
            return None
        found: dict[tuple[str, ...], Any] = {}
        _collect(value, (), found)
    except (ValueError, StopIteration, RecursionError):
        return None
    return found


def _collect(value: Any, place: tuple[str, ...], found: dict[tuple[str, ...], Any]) -> None:
    if isinstance(value, list):
        value = {str(number): item for number, item in enumerate(value)}
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _SAFETY:
                _collect(item, (*place, key), found)
            elif item:
                found[*place, key] = item


def replaces(
    source: Place, goal: Place, st: os.stat_result, st2: os.stat_result | None, project: str
) -> Callable[[], Effect] | None:
    """Return how to put a checked copy of ``source`` in the place of ``goal``, when that is Claude Code's state being
    rewritten with nothing new about safety but trust in ``project``; else None."""
    if goal.name != _NAME or not source.name.startswith(_NEW) or goal.parent.path != source.parent.path:
        return None
    if not stat.S_ISREG(st.st_mode) or (st2 is not None and not stat.S_ISREG(st2.st_mode)):
        return None
    new = rewrites.read(source, _MAX)
    old = rewrites.read(goal, _MAX) if st2 is not None else b"{}"
    if new is None or old is None:
        return None
    had, has = safety(old) or {}, safety(new)
    if has is None:
        return None
    has.pop(("projects", project, _TRUST), None)
    if any(place not in had or had[place] != value for place, value in has.items()):
        return None
    return rewrites.copier(source, goal, new, stat.S_IMODE(st.st_mode))
