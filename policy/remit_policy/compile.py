"""The compiled form of a snapshot: a trie of components, walked as an automaton built on demand.

Every pattern of every rule lies in one trie, its components the edges: a dictionary of literal names,
globs indexed by their literal ends, and ``**``. A *state* is the list of trie nodes that a path has
reached, most specific first, so the order in which patterns rank on a concrete path is the order in
which a state lists them, and is settled once per state, not per path. States are made when a path first
leads to them and shared by all paths that do; following a path is one dictionary look-up a component,
whatever the number of rules.

Order of a state (the law of specificity, see ``match.py``): the descendants of an earlier node come
before those of a later one; of one node, first the literal child, then globs by their key, then a ``**``
that goes on. A child stands before its own ``**``.
"""

from __future__ import annotations

from remit_policy.match import DSTAR, Glob, component, components

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from remit_policy.model import Decision

_NOT_NAMES = frozenset(("", ".", ".."))

MAX_STATES = 16384  # states kept; a visitor of more distinct ones makes the automaton start over
MAX_NAMES = 512  # names kept per state that are not written in any pattern


class Node:
    """A place in the trie. ``loop`` marks ``**``; ``rules`` and ``excepts`` hold the numbers of the rules
    whose pattern, or exception, ends here; ``below`` the numbers of all that end here or further down."""

    __slots__ = ("below", "dstar", "excepts", "globs", "literal", "loop", "number", "rules")

    def __init__(self, number: int, loop: bool = False) -> None:
        self.number = number
        self.loop = loop
        self.literal: dict[str, Node] = {}
        self.globs: GlobIndex | None = None
        self.dstar: Node | None = None
        self.rules: list[int] = []
        self.excepts: list[int] = []
        self.below = 0  # a bit set of operations

    def leaf(self) -> bool:
        """Tell whether nothing below this node can match."""
        return not (self.literal or self.globs or self.dstar or self.loop)


class GlobIndex:
    """The glob children of one node, found by their literal ends rather than one by one."""

    __slots__ = ("all", "free", "prefixes", "suffixes")

    def __init__(self) -> None:
        self.all: dict[str, tuple[Glob, Node]] = {}
        self.prefixes: dict[int, dict[str, list[tuple[Glob, Node]]]] = {}
        self.suffixes: dict[int, dict[str, list[tuple[Glob, Node]]]] = {}
        self.free: list[tuple[Glob, Node]] = []

    def add(self, glob: Glob, node: Node) -> None:
        """Add ``glob``, leading to ``node``."""
        entry = (glob, node)
        self.all[glob.text] = entry
        if glob.prefix:
            self.prefixes.setdefault(len(glob.prefix), {}).setdefault(glob.prefix, []).append(entry)
        elif glob.suffix:
            self.suffixes.setdefault(len(glob.suffix), {}).setdefault(glob.suffix, []).append(entry)
        else:
            self.free.append(entry)

    def find(self, name: str) -> list[Node]:
        """Return the nodes whose glob matches ``name``, most specific first."""
        some = self.free
        for size, table in self.prefixes.items():
            if name[:size] in table:
                some = some + table[name[:size]]
        for size, table in self.suffixes.items():
            if name[-size:] in table:
                some = some + table[name[-size:]]
        if not some:
            return []
        keyed = []
        for glob, node in some:
            key = glob.key(name)
            if key is not None:
                keyed.append((key, node.number, node))
        keyed.sort(reverse=True)
        return [node for _, _, node in keyed]


class Trie:
    """All patterns of a snapshot."""

    __slots__ = ("count", "root")

    def __init__(self) -> None:
        self.root = Node(0)
        self.count = 1

    def _node(self, loop: bool = False) -> Node:
        node = Node(self.count, loop)
        self.count += 1
        return node

    def add(self, parts: Sequence[str | Glob | None], number: int, ops: int, excepts: bool = False) -> None:
        """Add the components ``parts`` for rule ``number`` (as its exception if ``excepts``).

        ``ops`` is the bit set of operations that the rule is about.
        """
        node = self.root
        node.below |= ops
        for part in parts:
            if part is DSTAR:
                if node.dstar is None:
                    node.dstar = self._node(True)
                node = node.dstar
            elif isinstance(part, str):
                child = node.literal.get(part)
                if child is None:
                    child = node.literal[part] = self._node()
                node = child
            else:
                if node.globs is None:
                    node.globs = GlobIndex()
                entry = node.globs.all.get(part.text)
                if entry is None:
                    child = self._node()
                    node.globs.add(part, child)
                    node = child
                else:
                    node = entry[1]
            node.below |= ops
        (node.excepts if excepts else node.rules).append(number)


if TYPE_CHECKING:
    _StateBase = dict[str, "State"]
else:
    _StateBase = dict


class State(_StateBase):
    """Where a path has led: ``nodes``, most specific first. As a dictionary: name → next state.

    ``decided`` is for the engine to keep what it made of this state.
    """

    __slots__ = ("_globs", "_literals", "_machine", "_other", "decided", "nodes")

    def __init__(self, machine: Machine, nodes: tuple[Node, ...]) -> None:
        self._machine = machine
        self._other: State | None = None
        self._literals = [n.literal for n in nodes if n.literal]
        self._globs = [n.globs for n in nodes if n.globs is not None]
        self.nodes = nodes
        self.decided: dict[str, Decision] = {}

    def __missing__(self, name: str) -> State:
        if name in _NOT_NAMES:
            return self if name == "" else self._machine.lost
        for literal in self._literals:
            if name in literal:
                found = self[name] = self._machine.step(self.nodes, name)
                return found
        for globs in self._globs:
            if globs.find(name):
                found = self._machine.step(self.nodes, name)
                break
        else:
            found = self._other or self.other()
        if len(self) < MAX_NAMES:
            self[name] = found
        return found

    def other(self) -> State:
        """Return the state after a name that no pattern here mentions."""
        if self._other is None:
            self._other = self._machine.state([n for n in self.nodes if n.loop])
        return self._other


class Lost(State):
    """The state of what is not a normalised path. Nothing leads out of it."""

    __slots__ = ()

    def __missing__(self, name: str) -> State:
        return self


class Machine:
    """The automaton over a trie. ``start`` is the state of ``/``; ``lost`` of what is not a path."""

    __slots__ = ("_states", "lost", "start", "trie")

    def __init__(self, trie: Trie) -> None:
        self.trie = trie
        self.reset()

    def reset(self) -> None:
        """Forget all states."""
        self._states: dict[tuple[int, ...], State] = {}
        self.lost = Lost(self, ())
        self.start = self.state(_close([self.trie.root]))
        self.start[""] = self.start

    def full(self) -> bool:
        """Tell whether it is time to start over."""
        return len(self._states) > MAX_STATES

    def state(self, nodes: Sequence[Node]) -> State:
        """Return the one state of these nodes."""
        key = tuple([n.number for n in nodes])
        found = self._states.get(key)
        if found is None:
            found = self._states[key] = State(self, tuple(nodes))
        return found

    def step(self, nodes: Iterable[Node], name: str) -> State:
        """Return the state that ``name`` leads to from ``nodes``."""
        return self.state(advance(nodes, name))

    def walk(self, path: str) -> State:
        """Return the state of an absolute path."""
        state = self.start
        for name in path.split("/"):
            state = state[name]
        return state


def _close(nodes: Iterable[Node]) -> list[Node]:
    """Follow each node by its ``**``, dropping repeats."""
    out: dict[int, Node] = {}
    for node in nodes:
        out.setdefault(node.number, node)
        if node.dstar is not None:
            out.setdefault(node.dstar.number, node.dstar)
    return list(out.values())


def advance(nodes: Iterable[Node], name: str) -> list[Node]:
    """Return the nodes that ``name`` leads to, most specific first."""
    out: list[Node] = []
    for node in nodes:
        child = node.literal.get(name)
        if child is not None:
            out.append(child)
        if node.globs is not None:
            out += node.globs.find(name)
        if node.loop:
            out.append(node)
    return _close(out)


def tokens(patterns: Iterable[str]) -> list[str | Glob | None]:
    """Return the components of an argument pattern, one a token; ``**`` is any number of tokens.

    In a token ``*`` runs over ``/`` too. Raises PatternError.
    """
    return [component(p) for p in patterns]


def literal_root(pattern: str) -> str | None:
    """Return the directory whose whole tree the brace-less ``pattern`` is (``x/**`` gives ``x``), or None."""
    parts = components(pattern)
    if not parts or parts[-1] is not DSTAR:
        return None
    names = [p for p in parts[:-1] if isinstance(p, str)]
    return "/" + "/".join(names) if len(names) == len(parts) - 1 else None
