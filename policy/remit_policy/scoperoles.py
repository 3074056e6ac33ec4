"""Roles over scopes that policy files define: ``[scopes.NAME] inherits = [...], scopes = [...]``.

A name is defined once: were it added to from another file, a person could widen what an administrator's rule names.
What a role stands for is looked up whenever policy is read; tokens made under the policy before end with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from remit_policy.model import ADMIN, LAYERS, PACK, PROJECT
from remit_policy.scopes import ROLES, SCOPES

if TYPE_CHECKING:
    from remit_policy.document import Problem, Source

    Layered = Sequence[tuple[int, Source]]
    Place = tuple[str | int, ...]

_EXPECTED = "a scope or a role, as `remit token scopes` lists them"


def scope_roles(sources: Layered) -> dict[str, tuple[str, ...]]:
    """Return each role that the files define with all its scopes. What ``check_scopes`` objects to stands for nothing."""
    parts = {
        name: (*table.inherits, *table.scopes)
        for _, source in sources
        for name, table in source.document.scopes.items()
    }
    return {name: tuple(sorted(_scopes([name], parts))) for name in parts}


def _scopes(words: Iterable[str], parts: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    seen: set[str] = set()
    todo = list(words)
    while todo:
        word = todo.pop()
        if word in seen:
            continue
        seen.add(word)
        if word in ROLES:
            found.update(ROLES[word])
        elif word in SCOPES:
            found.add(word)
        else:
            todo += parts.get(word, ())
    return found


def _reaches(word: str, name: str, parts: Mapping[str, Sequence[str]]) -> bool:
    seen: set[str] = set()
    todo = [word]
    while todo:
        one = todo.pop()
        if one == name:
            return True
        if one not in seen:
            seen.add(one)
            todo += parts.get(one, ())
    return False


def check_scopes(sources: Layered) -> list[Problem]:
    """Return what is wrong with roles over scopes, and with the rules that name scopes."""
    out: list[Problem] = []
    owner: dict[str, Source] = {}
    # Stable, so that of two files of one layer the first has the name; the administrator's comes before any.
    for layer, source in sorted(sources, key=lambda s: (s[0] != ADMIN, s[0] != PACK)):
        for name in source.document.scopes:
            where: Place = ("scopes", name)
            if name in ROLES or name in SCOPES:
                out.append(source.problem(where, f"'{name}' is built in", "another name"))
            elif layer == PROJECT:
                out.append(
                    source.problem(where, "a role of scopes in a project's policy", "a person's own file")
                )
            elif name in owner:
                at = owner[name].at(*where)
                out.append(source.problem(where, f"'{name}' is defined in {at} already", "another name"))
            else:
                owner[name] = source
    parts = {n: (*s.document.scopes[n].inherits, *s.document.scopes[n].scopes) for n, s in owner.items()}
    known = {*ROLES, *SCOPES, *parts}
    for layer, source in sources:
        for name, table in source.document.scopes.items():
            for key in ("inherits", "scopes"):
                for number, word in enumerate(getattr(table, key)):
                    where = ("scopes", name, key, number)
                    if word not in known:
                        out.append(source.problem(where, f"unknown scope '{word}'", _EXPECTED))
                    elif _reaches(word, name, parts):
                        out.append(source.problem(where, f"role '{name}' inherits itself", "no circle"))
        out += _check_rules(layer, source, known, parts)
    return out


def _check_rules(
    layer: int, source: Source, known: set[str], parts: Mapping[str, Sequence[str]]
) -> list[Problem]:
    out: list[Problem] = []
    for role, tables in source.document.role.items():
        rule = tables.tokens.use
        for key in ("allow", "ask", "deny") if rule is not None else ():
            for number, word in enumerate(getattr(rule, key)):
                where: Place = ("role", role, "tokens", "use", key, number)
                if word not in known:
                    out.append(source.problem(where, f"unknown scope '{word}'", _EXPECTED))
                    continue
                sensitive = sorted(s for s in _scopes([word], parts) if SCOPES[s].sensitive)
                if sensitive and key == "allow" and layer != ADMIN:
                    text = f"{', '.join(sensitive)} allowed in the {LAYERS[layer]}'s policy"
                    out.append(
                        source.problem(where, text, "an administrator's file, which alone may grant it")
                    )
    return out
