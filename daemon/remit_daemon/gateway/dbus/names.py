"""Who owns which name on a bus, as the bus says on this very connection.

A unique name has the rights of the names that it owns now: one that it released gives none any more. What a peer was told
by us (``met``) makes it a peer whose end may be heard of, and gives no other right.
"""

from __future__ import annotations

from collections import OrderedDict

MAX_NAMES = 65_536  # names that are followed; a bus has some hundred
MAX_MET = 4096  # unique names that the agent knows rightly; the oldest is forgotten

_NONE: frozenset[str] = frozenset()


class Names:
    """The bus's names. Unique names begin with a colon."""

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}
        self._owned: dict[str, frozenset[str]] = {}
        self._met: OrderedDict[str, None] = OrderedDict()

    def owner(self, name: str) -> str:
        """Return who owns the well-known ``name``, "" when nobody does."""
        return self._owner.get(name, "")

    def owned(self, unique: str) -> frozenset[str]:
        """Return the well-known names that ``unique`` owns now."""
        return self._owned.get(unique, _NONE)

    def change(self, name: str, new: str) -> bool:
        """Take that ``name`` is owned by ``new`` ("" = nobody) from now on. Returns whether well-known names changed."""
        if name[:1] == ":":
            if new:
                return False
            self._met.pop(name, None)
            lost = self._owned.pop(name, _NONE)
            for one in lost:
                self._owner.pop(one, None)
            return bool(lost)
        old = self._owner.pop(name, "")
        if old == new:
            if new:
                self._owner[name] = new
            return False
        if old:
            rest = self._owned.get(old, _NONE) - {name}
            if rest:
                self._owned[old] = rest
            else:
                self._owned.pop(old, None)
        if new:
            if len(self._owner) >= MAX_NAMES:
                raise OverflowError("more names on the bus than can be followed")
            self._owner[name] = new
            self._owned[new] = self._owned.get(new, _NONE) | {name}
        return True

    def meet(self, unique: str) -> None:
        """Remember that the agent rightly knows ``unique``."""
        self._met[unique] = None
        if len(self._met) > MAX_MET:
            self._met.popitem(last=False)

    def met(self, unique: str) -> bool:
        """Say whether the agent rightly knows ``unique``."""
        return unique in self._met
