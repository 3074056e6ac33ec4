"""What a deny means when the place that it names is a symbolic link.

Requests are decided on the object's real path. A person who denies ``~/.ssh/**`` and keeps that directory in
``~/dotfiles/ssh`` means what is there: each deny, and each protected ask of the packs, is copied for where
its place really is when the snapshot is made. Only these: a copy of them never opens anything, while one of
an allow would follow links that an agent may have made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from remit_policy.match import DSTAR, Glob, escape, parse
from remit_policy.model import DENY, FILE_OPS, Rule


def linked(rules: Iterable[Rule]) -> list[Rule]:
    """Return copies of the strict rules among ``rules`` for where links lead."""
    out: list[Rule] = []
    targets: dict[str, list[str]] = {}
    reals: dict[str, str] = {"": ""}
    for rule in rules:
        if rule.op not in FILE_OPS or not (rule.verdict == DENY or rule.protected):
            continue
        found = targets.get(rule.pattern)
        if found is None:
            some = [_target(parts, reals) for parts in parse(rule.pattern)]
            found = targets[rule.pattern] = [t for t in some if t is not None]
        out += [_moved(rule, pattern) for pattern in found]
    return out


def _target(parts: Sequence[str | Glob | None], reals: dict[str, str]) -> str | None:
    """Return the pattern ``parts`` with links in its fixed part followed; None if there is none in it."""
    deep = bool(parts) and parts[-1] is DSTAR
    names = [p for p in parts if isinstance(p, str)]
    if not names or len(names) + deep != len(parts):
        return None
    place = "/" + "/".join(names)
    real = _real(place, reals)
    return None if real == place else escape(real) + ("/**" if deep else "")


def _real(place: str, reals: dict[str, str]) -> str:
    """Return where ``place`` really is; what is known of directories is kept in ``reals``."""
    found = reals.get(place)
    if found is None:
        parent, _, name = place.rpartition("/")
        found = f"{_real(parent, reals)}/{name}"
        if os.path.islink(found):
            found = os.path.realpath(found)
        reals[place] = found
    return found


def _moved(rule: Rule, pattern: str) -> Rule:
    return Rule(
        rule.layer,
        rule.verdict,
        rule.op,
        pattern,
        excepts=rule.excepts,
        final=rule.final,
        protected=rule.protected,
        hold=rule.hold,
        source=rule.source,
        role=rule.role,
        text=rule.text,
    )
