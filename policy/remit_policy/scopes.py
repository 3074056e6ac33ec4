"""The scopes that a token can have, and the roles that stand for several: data, each with a sentence for people.

A scope says which kind of thing; which things of that kind, a token's ``authorization_details`` say. There is none that
stands for all. *Sensitive* scopes are an administrator's to grant. Policy files name roles of their own in ``[scopes.NAME]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

READ, WRITE = "read", "write"
LOW, MEDIUM, HIGH = "low", "medium", "high"


class UnknownScope(ValueError):
    """No scope or role has that name."""


@dataclass(frozen=True, slots=True)
class Scope:
    """``sentence`` completes "it may …"; ``access`` is READ or WRITE; ``risk`` what a mistake could cost."""

    name: str
    sentence: str
    access: str
    risk: str
    sensitive: bool = False


SCOPES = {
    scope.name: scope
    for scope in (
        Scope("files:read", "read the files named", READ, MEDIUM),
        Scope("files:list", "list the directories named", READ, LOW),
        Scope("files:write", "change and make the files named", WRITE, MEDIUM),
        Scope("files:delete", "remove the files named", WRITE, HIGH),
        Scope("files:metadata", "change modes, owners and times of the files named", WRITE, MEDIUM),
        Scope("exec:run", "run the programs named", WRITE, HIGH),
        Scope("net:resolve", "look up the host names named", READ, LOW),
        Scope("net:connect", "connect to the hosts named", WRITE, MEDIUM),
        Scope("net:listen", "serve at the ports named", WRITE, MEDIUM),
        Scope("apps:see", "know which of the services named run", READ, LOW),
        Scope("apps:call", "have the services named do things", WRITE, HIGH),
        Scope("apps:own", "be the services named", WRITE, MEDIUM),
        Scope("apps:use", "work the screen, sound, keys or browser, as named", WRITE, HIGH),
        Scope("secrets:use", "use the credentials named, without seeing them", WRITE, HIGH),
        Scope("log:read", "read what was done, and by whom", READ, MEDIUM),
        Scope("grants:read", "read what was allowed for longer", READ, LOW),
        Scope("grants:revoke", "take back what was allowed", WRITE, MEDIUM, sensitive=True),
        Scope("policy:read", "read the policy in force", READ, LOW),
    )
}
_VIEW = ("files:read", "files:list", "net:resolve", "apps:see")
ROLES = {
    "reader": _VIEW,
    "editor": (*_VIEW, "files:write", "files:metadata"),
    "operator": (*_VIEW, "files:write", "files:metadata", "files:delete", "exec:run", "net:connect", "net:listen", "apps:call"),
    "auditor": ("log:read", "grants:read", "policy:read"),
    "admin": ("log:read", "grants:read", "policy:read", "grants:revoke"),
}  # fmt: skip


RESOURCE = "token:"  # before a scope's name, where policy decides whether an agent may have it


def expand(words: Iterable[str], own: Mapping[str, tuple[str, ...]] | None = None) -> frozenset[str]:
    """Return the scopes that ``words``, names of scopes and roles, stand for. Raises UnknownScope.

    ``own`` are the roles that policy files define, with their scopes.
    """
    found: set[str] = set()
    for word in words:
        if word in ROLES:
            found.update(ROLES[word])
        elif word in SCOPES:
            found.add(word)
        elif own and word in own:
            found.update(own[word])
        else:
            raise UnknownScope(word)
    return frozenset(found)
