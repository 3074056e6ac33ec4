"""From documents to limits: what the sections about an agent and its roles say of amounts and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from remit_policy.document import Quota, SessionQuota, Source
from remit_policy.limits import UNITS, Limit
from remit_policy.model import LAYERS
from remit_policy.rules import Layered, agent_fits
from remit_policy.values import parse_budget, parse_rate, parse_spend

_PARSERS = {"bytes": parse_budget, "spend": parse_spend}


def quotas_of(
    sources: Layered, name: str, exe: str, sha256: str, variables: Mapping[str, str], roles: Sequence[str]
) -> list[Limit]:
    """Return the limits of this agent, whose roles are ``roles``: all of them hold, each counts by itself."""
    out = []
    for layer, source in sources:
        for section, agent in source.document.agent.items():
            if agent.limits is not None and agent_fits(section, source, name, exe, sha256, variables):
                out += _limits(layer, source, ("agent", section), agent.limits)
        for role in roles:
            found = source.document.role.get(role)
            if found is not None and found.limits is not None:
                out += _limits(layer, source, ("role", role), found.limits)
    seen: dict[str, int] = {}
    for limit in out:
        seen[limit.ident] = number = seen.get(limit.ident, 0) + 1
        if number > 1:  # the same section of another file of this layer
            limit.section += f"#{number}"
    return out


def _limits(layer: int, source: Source, where: tuple[str, str], quota: Quota) -> list[Limit]:
    section = f"{LAYERS[layer]} {where[0]}.{where[1]}"
    tables: list[tuple[str, SessionQuota | None, tuple[str, ...]]] = [
        ("agent", quota, (*where, "limits")),
        ("session", quota.session, (*where, "limits", "session")),
    ]
    return [
        Limit(section, per, kind, *_PARSERS.get(kind, parse_rate)(text), source.at(*path, kind))
        for per, table, path in tables
        if table is not None
        for kind in UNITS
        if (text := getattr(table, kind)) is not None
    ]
