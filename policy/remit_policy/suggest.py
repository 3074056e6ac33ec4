"""From what an agent did to the fewest, narrowest rules that allow it. Pure: acts in, proposals out.

How many and how narrow pull against each other. In this order:

1. What is protected, guarded or denied, or what an administrator wants to be asked about, is left out, whatever was done.
2. Each thing is proposed as itself, for all that was done to it, unless three or more of the same kind lie together:
   FEW files directly in one directory, to which the same was done, become ``dir/*.ext`` when they all end alike, else ``dir/*``.
3. FEW directories with FEW * FEW files in them altogether, under one parent, become ``parent/**``.
4. No pattern with a wildcard is proposed for the home directory or what is above it, for the first level of the file system,
   or where an anchored strict rule lies inside. (A floating one, as ``**/.env``, is more specific than these patterns and
   goes on holding.)
5. Hosts are proposed one by one: who owns the others of a domain is not known here. Looking a name up needs no rule of
   its own where connecting to it has one; nor does listing where reading has, nor making where writing has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from posixpath import basename, dirname

from remit_policy.engine import Engine
from remit_policy.match import PatternError, escape
from remit_policy.model import ADMIN, ALLOW, ASK, DENY, FILE_OPS, GUARD, IMPLIED_BY, USER, Rule, Snapshot
from remit_policy.resources import exact, is_path, key

FEW = 3
EXAMPLES = 4
LEARNT_OPS = (*FILE_OPS, "connect", "resolve")

Act = tuple[str, str, int]  # operation, resource, how often


@dataclass(frozen=True, slots=True)
class Proposal:
    """One rule: ``pattern`` for ``ops``; it is for ``resources`` different things that were used ``number`` times."""

    ops: tuple[str, ...]
    pattern: str
    number: int
    resources: int
    examples: tuple[str, ...]

    def rules(self) -> tuple[Rule, ...]:
        """Return it as rules of the person's own layer, looking up a host that may be connected to included."""
        rules = [Rule(USER, ALLOW, op, self.pattern) for op in self.ops]
        host = self.pattern.rpartition(":")[0]
        if self.ops == ("connect",) and _is_resource("resolve", host):
            rules.append(Rule(USER, ALLOW, "resolve", host))
        return tuple(rules)


def is_strict(rule: Rule) -> bool:
    """Tell whether nothing is to be proposed where ``rule`` applies."""
    return rule.verdict == DENY or rule.protected or (rule.layer in (GUARD, ADMIN) and rule.verdict == ASK)


class _Strict:
    """The places that insist, as one engine that denies there and asks elsewhere."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        strict = [r for r in rules if is_strict(r)]
        self._at = Engine(Snapshot("", tuple(_denied(r) for r in strict)))
        self._in = Engine(Snapshot("", tuple(_denied(r) for r in strict if r.pattern.startswith("/"))))

    def holds(self, op: str, resource: str) -> bool:
        return self._at.decide(op, resource).verdict == DENY

    def inside(self, ops: Iterable[str], top: str) -> bool:
        return any(self._in.below(op, top) == DENY for op in ops)


def _denied(rule: Rule) -> Rule:
    return Rule(GUARD, DENY, rule.op, rule.pattern, excepts=rule.excepts, argv=rule.argv)


def suggest(acts: Iterable[Act], rules: Sequence[Rule], home: str) -> list[Proposal]:
    """Return proposals for ``acts``, the most used first; ``rules`` are those in force, ``home`` is absolute.

    Acts that are no operation of LEARNT_OPS or no resource of theirs are left out.
    """
    strict = _Strict(rules)
    done: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for op, resource, number in acts:
        if op not in LEARNT_OPS or not _is_resource(op, resource) or strict.holds(op, resource):
            continue
        done[resource][op] += number
    files: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    found: list[Proposal] = []
    hosts = {r.rpartition(":")[0] for r, ops in done.items() if "connect" in ops}
    for resource, ops in done.items():
        if set(ops) <= set(FILE_OPS):
            kept = tuple(op for op in FILE_OPS if op in ops and IMPLIED_BY.get(op) not in ops)
            files[kept][resource] = sum(ops.values())
        elif not (set(ops) == {"resolve"} and resource in hosts):
            for op, number in ops.items():
                found.append(Proposal((op,), exact(op, resource), number, 1, (resource,)))
    for group, paths in files.items():
        found += _together(group, paths, strict, home)
    return sorted(_needed(found), key=lambda p: (-p.number, p.pattern))


def _is_resource(op: str, resource: str) -> bool:
    try:
        resource.encode()  # a name that is no UTF-8 cannot stand in a policy file
    except UnicodeEncodeError:
        return False
    if is_path(op, resource):
        return resource.startswith("/") and "\0" not in resource and op in FILE_OPS
    try:
        return bool(key(op, resource))
    except PatternError:
        return False


def _together(ops: tuple[str, ...], paths: dict[str, int], strict: _Strict, home: str) -> list[Proposal]:
    """Return proposals of ``ops`` for ``paths``, by rules 2 to 4."""

    def may(top: str) -> bool:
        above_home = (home + "/").startswith(top.rstrip("/") + "/")
        return top.count("/") > 1 and not above_home and not strict.inside(ops, top)

    trees: list[str] = []
    below: dict[str, set[str]] = defaultdict(set)  # directory → its children that hold files
    held: dict[str, int] = defaultdict(int)  # directory → files at any depth
    for path in paths:
        child, at = path, dirname(path)
        held[at] += 1
        while dirname(at) != at:
            child, at = at, dirname(at)
            below[at].add(child)
            held[at] += 1
    for top in sorted(below, key=lambda d: d.count("/")):
        covered = any((top + "/").startswith(tree + "/") for tree in trees)
        if not covered and len(below[top]) >= FEW and held[top] >= FEW * FEW and may(top):
            trees.append(top)
    groups: dict[str, list[str]] = defaultdict(list)  # pattern → paths
    rest: dict[str, list[str]] = defaultdict(list)  # directory → paths
    for path in paths:
        tree = next((t for t in trees if path.startswith(t + "/")), None)
        if tree is not None:
            groups[escape(tree) + "/**"].append(path)
        else:
            rest[dirname(path)].append(path)
    for top, some in rest.items():
        if len(some) >= FEW and may(top):
            endings = {_ending(path) for path in some}
            ending = endings.pop() if len(endings) == 1 else ""
            groups[escape(top) + (f"/*.{escape(ending)}" if ending else "/*")] += some
        else:
            for path in some:
                groups[escape(path)].append(path)
    return [
        Proposal(ops, pattern, sum(paths[p] for p in some), len(some), tuple(sorted(some)[:EXAMPLES]))
        for pattern, some in groups.items()
    ]


def _ending(path: str) -> str:
    stem, dot, ending = basename(path).rpartition(".")
    return ending if dot and stem else ""


def _needed(proposals: list[Proposal]) -> list[Proposal]:
    """Leave out of each proposal the operations that others allow already, with all that it is for."""
    out = list(proposals)
    for proposal in sorted(proposals, key=lambda p: p.resources):
        if proposal.resources > EXAMPLES:
            continue  # its examples are not all that it is for
        others = [p for p in out if p is not proposal]
        engine = Engine(Snapshot("", tuple(rule for p in others for rule in p.rules())))
        if all(engine.decide(op, r).verdict == ALLOW for op in proposal.ops for r in proposal.examples):
            out.remove(proposal)
    return out
