"""``authorization_details`` (RFC 9396): which things a token is for, and when one token's are within another's.

    {"type": "files", "actions": ["read", "write"], "locations": ["/home/u/project/**"]}

``type`` and an action together are a scope of the registry (``files:read``); locations are patterns of the policy language, for
hosts, services and the rest as policy files write them. *Within* is decided on the patterns alone and errs to no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remit_policy.match import PatternError, parse
from remit_policy.resources import patterns
from remit_policy.scopes import SCOPES

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DETAILS = 64
MAX_LOCATIONS = 256  # of one detail
MAX_LOCATION = 4096  # characters
# The policy's operation by which a location of a type is read.
_OPERATION = {
    "files": "read", "exec": "execute", "net": "connect", "apps": "see", "secrets": "use", "log": "", "grants": "", "policy": "",
}  # fmt: skip
TYPES = tuple(_OPERATION)


class BadDetails(ValueError):
    """The details are malformed; the text says where."""


@dataclass(frozen=True, slots=True)
class Detail:
    """One entry. No locations: all of that type that policy allows. A scope that no entry is about is not limited either."""

    type: str
    actions: frozenset[str]
    locations: tuple[str, ...] = ()

    @property
    def scopes(self) -> frozenset[str]:
        return frozenset(f"{self.type}:{a}" for a in self.actions)

    def as_json(self) -> dict[str, Any]:
        """Return the entry as RFC 9396 has it."""
        out: dict[str, Any] = {"type": self.type, "actions": sorted(self.actions)}
        return out | ({"locations": list(self.locations)} if self.locations else {})


def read(value: object) -> tuple[Detail, ...]:
    """Return the entries of a parsed ``authorization_details``. Raises BadDetails."""
    if not isinstance(value, list) or len(value) > MAX_DETAILS:
        raise BadDetails(f"a list of at most {MAX_DETAILS} entries is expected")
    return tuple(_entry(number, item) for number, item in enumerate(value))


def _entry(number: int, item: object) -> Detail:
    if not isinstance(item, dict) or not set(item) <= {"type", "actions", "locations"}:
        raise BadDetails(f"entry {number}: type, actions and locations are expected, and nothing else")
    kind, actions, locations = item.get("type"), item.get("actions"), item.get("locations", [])
    if kind not in _OPERATION:
        raise BadDetails(f"entry {number}: type must be one of {', '.join(TYPES)}")
    if not _texts(actions) or not actions:
        raise BadDetails(f"entry {number}: actions must be a list of texts")
    for action in actions:
        if f"{kind}:{action}" not in SCOPES:
            raise BadDetails(f"entry {number}: {kind} has no action {action!r}")
    if not _texts(locations) or len(locations) > MAX_LOCATIONS:
        raise BadDetails(f"entry {number}: locations must be a list of at most {MAX_LOCATIONS} texts")
    for location in locations:
        _check(number, kind, location)
    return Detail(kind, frozenset(actions), tuple(dict.fromkeys(locations)))


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _check(number: int, kind: str, location: str) -> None:
    if len(location) > MAX_LOCATION:
        raise BadDetails(f"entry {number}: a location of more than {MAX_LOCATION} characters")
    op = _OPERATION[kind]
    if not op:
        raise BadDetails(f"entry {number}: {kind} has no locations")
    try:
        if kind in ("files", "exec"):
            if location[:1] != "/":
                raise PatternError("a relative path", "an absolute one")
            parse(location)
        elif not patterns(op, location):
            raise PatternError("no pattern", "one")
    except PatternError as e:
        raise BadDetails(f"entry {number}: {location!r}: {e}; expected {e.expected}") from None


def has_places(scope: str) -> bool:
    """Tell whether ``scope`` is one that locations can limit."""
    return bool(_OPERATION[scope.partition(":")[0]])


def limits(scope: str, details: Iterable[Detail]) -> tuple[str, ...] | None:
    """Return the locations to which ``details`` limit ``scope``, None when they do not."""
    kind, _, action = scope.partition(":")
    about = [d for d in details if d.type == kind and action in d.actions]
    if not about or any(not d.locations for d in about):
        return None
    return tuple(place for d in about for place in d.locations)


def narrower(asked: tuple[frozenset[str], tuple[Detail, ...]], held: tuple[frozenset[str], tuple[Detail, ...]]) -> bool:  # fmt: skip
    """Say whether all that the scopes and details ``asked`` give is within what those ``held`` give."""
    scopes, details = asked
    if not scopes <= held[0]:
        return False
    for scope in scopes:
        places = limits(scope, held[1])
        if places is None:
            continue
        wanted = limits(scope, details)
        if wanted is None or not all(any(_inside(scope, w, p) for p in places) for w in wanted):
            return False
    return True


def only(details: Iterable[Detail], scopes: frozenset[str]) -> tuple[Detail, ...]:
    """Return what of ``details`` is about ``scopes``."""
    out = []
    for detail in details:
        actions = frozenset(a for a in detail.actions if f"{detail.type}:{a}" in scopes)
        if actions:
            out.append(Detail(detail.type, actions, detail.locations))
    return tuple(out)


def _inside(scope: str, location: str, held: str) -> bool:
    """Say whether every thing that ``location`` covers ``held`` covers; when unsure, no."""
    if location == held:
        return True
    if scope.partition(":")[0] not in ("files", "exec") or not held.endswith("/**"):
        return False
    top = held.removesuffix("**")
    literal = not set("*?[]{}\\") & set(top)
    below = location.startswith(top) and ".." not in location.split("/") and not set("{}") & set(location)
    return literal and (below or location == top.rstrip("/"))
