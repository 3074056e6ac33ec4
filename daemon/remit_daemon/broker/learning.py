"""What a session that learns may do without a question: what no rule is about, and what is not dangerous. Pure.

Everything else is asked as ever. Dangerous is:
- what any rule says to ask about, whoever wrote it, and what is protected or denied;
- whatever is no file and no host on the internet known by its name: addresses, this machine, sockets, buses, apps, listening;
- hidden places (a name that begins with a dot): settings and tokens are kept there;
- keys, credentials and what runs later, told by name as well;
- outside the project and the caches: changing or removing what is there, and making programs. Making something else that is new is none of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from remit_policy import hosts
from remit_policy.kinds import SECRET, kind_of
from remit_policy.model import ASK, Decision
from remit_policy.suggest import LEARNT_OPS

_MAKING = {"create", "write", "read", "list"}
_CHANGING = {"write", "delete", "metadata"}
_OWN = ("PROJECT", "TMPDIR", "XDG_CACHE_HOME")


def learnable(
    decisions: Iterable[Decision],
    ops: Sequence[str],
    path: str,
    path2: str,
    source: str,
    variables: Mapping[str, str],
) -> bool:
    """Tell whether ``ops`` on ``path`` are let through and recorded; ``decisions`` are the policy's on each of them.

    ``source`` is the rule by which the enforcement point came to ask, ``variables`` are the session's.
    """
    if source not in ("", "default") or path2 or not set(ops) <= set(LEARNT_OPS):
        return False
    if any(d.verdict != ASK or d.rule is not None for d in decisions):
        return False
    if "connect" in ops or "resolve" in ops:
        return _public(path)
    own = any(_below(path, variables.get(name, "")) for name in _OWN)
    if any(name.startswith(".") for name in path.split("/")) and not own:
        return False
    kind = kind_of(path, ())
    if kind in (*SECRET, "later"):
        return False
    making = "create" in ops and set(ops) <= _MAKING and kind != "program"
    return own or making or not set(ops) & _CHANGING


def _public(resource: str) -> bool:
    """Tell whether ``resource`` is a name of the internet, with or without a port."""
    if resource[:1] in ("/", "@"):
        return False
    host, colon, port = resource.rpartition(":")
    host = host if colon and port.isdigit() else resource
    return (
        not hosts.is_address(host)
        and "." in host
        and host != hosts.LOCAL
        and not host.endswith((".local", ".internal"))
    )


def _below(path: str, top: str) -> bool:
    return bool(top) and top != "/" and (path == top or path.startswith(top + "/"))
