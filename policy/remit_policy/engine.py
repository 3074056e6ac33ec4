"""Deciding: (snapshot, request) → decision. Pure, bounded, and the last word at every enforcement point.

The laws by which matching rules become a verdict are in ``laws.py``.

Nothing here imports more than the matcher: this module is loaded at every ``remit run``.
"""

from __future__ import annotations

from remit_policy.compile import Machine, Trie, advance, literal_root, tokens
from remit_policy.laws import conditions, fold, insists, limited
from remit_policy.match import expand, parse
from remit_policy.model import (
    ALLOW,
    ASK,
    DENY,
    GRANT,
    IMPLIED_BY,
    OPS,
    Decision,
    Rule,
)
from remit_policy.resources import bus_root, is_path, key, name_part, patterns, request_root

__all__ = ["Engine", "conditions"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from remit_policy.compile import Node, State
    from remit_policy.match import Glob
    from remit_policy.model import Snapshot

    Group = list[Rule]

MAX_MEMO = 8192  # decisions kept for each operation; a few megabytes at most
MAX_EXPLORED = 4096  # states looked at for one question about a whole tree
MAX_ARGV_TRIES = 64

_BITS = {op: 1 << i for i, op in enumerate(OPS)}
_LOST = Decision(DENY, None)
_UNMATCHED = Decision(ASK, None)


class Engine:
    """Decides by one snapshot. Not safe for several threads.

    Raises PatternError on construction if a rule's pattern means nothing.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        rules = snapshot.rules
        self._rules = rules
        trie = Trie()
        for number, rule in enumerate(rules):
            bits = _BITS[rule.op]
            for op, by in IMPLIED_BY.items():
                if by == rule.op:
                    bits |= _BITS[op]
            for parts in _patterns(rule.op, rule.pattern):
                trie.add(parts, number, bits)
            for text in rule.excepts:
                for parts in _patterns(rule.op, text):
                    trie.add(parts, number, bits, excepts=True)
        self._machine = Machine(trie)
        self._memo: dict[str, dict[str, Decision]] = {op: {} for op in OPS}
        self._argv: dict[tuple[int, ...], tuple[Machine, list[Rule]]] = {}
        self._callees: Machine | None = None

    @staticmethod
    def _key(op: str, text: str) -> str:
        return "" if is_path(op, text) else key(op, text)

    def has_requests(self, host: str, port: int) -> bool:
        """Tell whether some rule is about single requests to the canonical ``host`` at ``port``."""
        nodes = self._walk(request_root(host, port)).nodes
        return any(
            any(name[0] == "\0" for name in node.literal)
            or (node.globs is not None and any(text[0] == "\0" for text in node.globs.all))
            for node in nodes
        )

    def may_call(self, system: bool, name: str) -> bool:
        """Tell whether some call to the service ``name`` is, or could be, allowed by a rule."""
        if self._callees is None:
            self._callees = self._names_called()
        root = bus_root(system, name)
        if self._callees.full():
            self._callees.reset()
        if not any(node.rules for node in self._callees.walk(root.rpartition("/")[0]).nodes):
            return False
        return ALLOW in (self._explore("call", root, stop=False) or ())

    def _names_called(self) -> Machine:
        """Return what recognises the services that rules allow some call to."""
        trie = Trie()
        for number, rule in enumerate(self._rules):
            if rule.op == "call" and rule.verdict == ALLOW:
                for parts in _patterns(rule.op, rule.pattern):
                    trie.add(name_part(parts), number, _BITS["call"])
        return Machine(trie)

    def calls_alike(self, system: bool, name: str) -> int | None:
        """Return the verdict that every call to the service ``name`` gets, None when there is no such verdict."""
        return self.uniform("call", bus_root(system, name))

    def arguments_alike(self, resource: str) -> int | None:
        """Return the verdict that the call ``resource`` gets whatever its arguments, None when there is no such verdict."""
        where = key("call", resource)
        return self.uniform("call", where) if where else DENY

    # -- files -------------------------------------------------------------------------------------

    def decide(self, op: str, path: str) -> Decision:
        """Return the decision for ``op`` on the absolute, normalised ``path``, or on a resource as ``resources`` writes it.

        ``matches`` of the result is empty. Raises KeyError for an unknown operation.
        """
        memo = self._memo[op]
        found = memo.get(path)
        if found is not None:
            return found
        where = path if path[:1] == "/" and "\0" not in path and is_path(op, path) else self._key(op, path)
        if not where:
            return _LOST
        state = self._machine.start
        for name in where.split("/"):
            state = state[name]
        found = state.decided.get(op)
        if found is None:
            found = state.decided[op] = self._settle(op, state)[0]
            if self._machine.full():
                self._machine.reset()
        if len(memo) >= MAX_MEMO:
            memo.clear()
        memo[path] = found
        return found

    def decide_given(self, op: str, path: str, given: str) -> Decision:
        """Return the decision for ``path``, the object's real path, reached by the lexical path ``given``.

        A deny of either is a deny.
        """
        found = self.decide(op, path)
        if given != path and found.verdict != DENY:
            other = self.decide(op, given)
            if other.verdict == DENY:
                return other
        return found

    def explain(self, op: str, path: str) -> Decision:
        """Return what ``decide`` returns, with every matching rule, the most specific first."""
        known = self.decide(op, path)
        where = path if path[:1] == "/" and "\0" not in path and is_path(op, path) else self._key(op, path)
        if not where:
            return known
        state = self._walk(where)
        groups = self._groups(op, state)
        by = IMPLIED_BY.get(op)
        ranked = [r for g in groups for r in sorted(g, key=_severity) if r.op == op]
        if by is not None:
            own = {r.layer for r in ranked}
            ranked = [
                r for g in groups for r in sorted(g, key=_severity) if r.op == op or r.layer not in own
            ]
        return Decision(known.verdict, known.rule, tuple(ranked))

    def _walk(self, path: str) -> State:
        if self._machine.full():
            self._machine.reset()
        return self._machine.walk(path)

    def _groups(self, op: str, state: State) -> list[Group]:
        """Return the rules for ``op`` or the one that implies it, equally specific ones together, the
        most specific first; without those that an exception takes out."""
        rules = self._rules
        by = IMPLIED_BY.get(op, op)
        gone: set[int] = set()
        for node in state.nodes:
            gone.update(node.excepts)
        out: list[Group] = []
        seen: set[int] = set()
        for node in state.nodes:
            group = []
            for number in node.rules:
                rule = rules[number]
                if (rule.op == op or rule.op == by) and number not in gone and number not in seen:
                    seen.add(number)
                    group.append(rule)
            if group:
                out.append(group)
        return out

    def _settle(self, op: str, state: State) -> tuple[Decision, bool]:
        if state is self._machine.lost:
            return _LOST, False
        groups = self._groups(op, state)
        if not groups:
            return _UNMATCHED, False
        return fold(groups, op)

    # -- programs ----------------------------------------------------------------------------------

    def decide_exec(self, exe: str, argv: Sequence[str]) -> Decision:
        """Return the decision for running ``exe`` (a real path) with ``argv``, argv[0] included.

        The strictest of the decision for ``execute`` on the path and that of the exec rules for this
        executable. A layer that has such rules, none of which fits the arguments, asks.
        """
        return self._exec(exe, argv)[0]

    def explain_exec(self, exe: str, argv: Sequence[str]) -> Decision:
        """Return what ``decide_exec`` returns, with the matching exec rules and then those of the path."""
        found, groups = self._exec(exe, argv)
        ranked = [r for g in groups for r in sorted(g, key=_severity)]
        return Decision(found.verdict, found.rule, (*ranked, *self.explain("execute", exe).matches))

    def _exec(self, exe: str, argv: Sequence[str]) -> tuple[Decision, list[Group]]:
        on_path = self.decide("execute", exe)
        if exe[:1] != "/" or on_path.verdict == DENY:
            return on_path, []
        named = self._groups("exec", self._walk(exe))
        if not named:
            return on_path, []
        groups: list[Group] = []
        for group in named:
            groups += self._by_argv(group, argv[1:])
        # A layer that speaks of this program, but not of these arguments, asks (never the grants).
        heard = {r.layer for g in groups for r in g}
        silent = {r.layer: r for g in named for r in g if r.layer not in heard and r.layer != GRANT}
        if silent:
            groups.append(
                [
                    Rule(r.layer, ASK, "exec", r.pattern, source=r.source, role=r.role, text=r.text)
                    for r in silent.values()
                ]
            )
        if not groups:
            return on_path, []
        if all(r.layer == GRANT for g in groups for r in g):
            found, answered = on_path, False
        else:
            found, answered = fold(groups, "exec")
        if answered and on_path.verdict == ASK and found.verdict == ALLOW:
            return (on_path if insists(on_path.rule) else found), groups
        if found.verdict >= on_path.verdict:
            if found is on_path and found.verdict == ASK and not insists(found.rule):
                grant = _most_specific(groups, GRANT)
                if grant is not None:
                    return Decision(grant.verdict, limited(grant, found.rule)), groups
            return found, groups
        return on_path, groups

    def _by_argv(self, group: Group, args: Sequence[str]) -> list[Group]:
        """Return those of ``group`` whose argument patterns fit ``args``, as ``_groups`` does."""
        key = tuple([id(r) for r in group])
        entry = self._argv.get(key)
        if entry is None:
            trie = Trie()
            for number, rule in enumerate(group):
                trie.add(tokens(rule.argv if rule.argv is not None else ("**",)), number, 1)
            if len(self._argv) >= MAX_ARGV_TRIES:
                self._argv.clear()
            entry = self._argv[key] = (Machine(trie), list(group))
        machine, rules = entry
        nodes = machine.start.nodes
        for arg in args:
            nodes = tuple(advance(nodes, arg))
            if not nodes:
                return []
        return [[rules[n] for n in node.rules] for node in nodes if node.rules]

    # -- whole trees -------------------------------------------------------------------------------

    def uniform(self, op: str, root: str) -> int | None:
        """Return the verdict that every path at or below ``root`` gets whatever its name, time and count.

        None when there is no such verdict or when finding out would take too long.
        """
        verdicts = self._explore(op, root, stop=True)
        if verdicts is None or len(verdicts) != 1:
            return None
        return next(iter(verdicts))

    def below(self, op: str, root: str) -> int:
        """Return the strictest verdict that a path at or below ``root`` could get, or a stricter one."""
        found = self._explore(op, root, stop=False)
        return DENY if found is None else max(found)

    def _explore(self, op: str, root: str, *, stop: bool) -> set[int] | None:
        """Return the verdicts that occur at or below ``root``; with ``stop`` None if they are not one,
        unconditional. Where globs take part the verdicts of all rules below stand in for it."""
        bit = _BITS[op]
        machine = self._machine
        first = self._walk(root)
        if first is machine.lost or root[:1] != "/":
            return {DENY}
        todo, seen, verdicts = [first], {id(first)}, set[int]()
        while todo:
            state = todo.pop()
            found, _ = self._settle(op, state)
            verdicts.add(found.verdict)
            rule = found.rule
            if stop and (len(verdicts) > 1 or (rule is not None and (rule.rate or rule.window))):
                return None
            names: set[str] = set()
            globs = False
            for node in state.nodes:
                names.update([name for name, child in node.literal.items() if child.below & bit])
                if node.globs is not None:
                    globs = globs or any(child.below & bit for _, child in node.globs.all.values())
            if globs:
                if stop:
                    return None
                verdicts.add(ASK)
                verdicts |= self._reachable(op, state.nodes)
                continue
            following = [machine.step(state.nodes, name) for name in names]
            following.append(state.other())
            for nxt in following:
                if id(nxt) not in seen:
                    seen.add(id(nxt))
                    todo.append(nxt)
            if len(seen) > MAX_EXPLORED:
                return None
        return verdicts

    def _reachable(self, op: str, nodes: Sequence[Node]) -> set[int]:
        ops = (op, IMPLIED_BY.get(op, op))
        todo, seen = list(nodes), set[int]()
        out: set[int] = set()
        while todo:
            node = todo.pop()
            if node.number in seen:
                continue
            seen.add(node.number)
            out.update([self._rules[n].verdict for n in node.rules if self._rules[n].op in ops])
            todo += node.literal.values()
            if node.globs is not None:
                todo += [child for _, child in node.globs.all.values()]
            if node.dstar is not None:
                todo.append(node.dstar)
        return out

    def residual(self, path: str) -> object:
        """Return a value that is equal for two directories only if all that is below them, name for
        name, gets the same decisions."""
        state = self._walk(path)
        if state is self._machine.lost:
            return None
        return tuple([n.number for n in state.nodes if not n.leaf()])

    def static_roots(self, op: str, among: Callable[[str], bool] = bool) -> list[str]:
        """Return the largest trees named by allow rules in which every path is allowed ``op``, sorted.

        Only those for which ``among`` is true are looked into: most that a policy names are not there.
        """
        by = IMPLIED_BY.get(op, op)
        candidates: set[str] = set()
        for rule in self._rules:
            if rule.verdict == ALLOW and (rule.op == op or rule.op == by):
                for pattern in expand(rule.pattern):
                    root = literal_root(pattern)
                    if root is not None:
                        candidates.add(root)
        out: list[str] = []
        for root in sorted(candidates):
            if (
                among(root)
                and not any(top == "/" or root.startswith(top + "/") for top in out)
                and (self.uniform(op, root) == ALLOW)
            ):
                out.append(root)
        return out


def _patterns(op: str, text: str) -> list[list[str | Glob | None]]:
    return parse(text) if is_path(op, text) else patterns(op, text)


def _severity(rule: Rule) -> int:
    return -rule.verdict


def _most_specific(groups: list[Group], layer: int) -> Rule | None:
    for group in groups:
        best: Rule | None = None
        for rule in group:
            if rule.layer == layer and (best is None or rule.verdict > best.verdict):
                best = rule
        if best is not None:
            return best
    return None
