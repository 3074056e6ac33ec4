"""How many connections one socket has, and one holder of them: nobody takes the last places from the others.

A holder is a session with all that it delegated to, or one process outside. Each may have ``each`` places, and those that are ``kept`` go
only to holders with fewer than FEW: one that opens as many as it can leaves room for all others to come in. Pure.
"""

from __future__ import annotations

from collections import Counter

FEW = 8  # a program has one connection, or a few


class Places:
    """The places of one socket: ``total`` of them, ``each`` of one holder, ``kept`` for those with few."""

    def __init__(self, total: int, each: int, kept: int) -> None:
        self._total = total
        self._each = each
        self._kept = kept
        self._of: Counter[str] = Counter()
        self._taken = 0

    def take(self, holder: str) -> bool:
        """Give ``holder`` a place; False when there is none for it."""
        mine = self._of[holder]
        room = self._total - (self._kept if mine >= FEW else 0)
        if mine >= self._each or self._taken >= room:
            if not mine:
                del self._of[holder]
            return False
        self._of[holder] += 1
        self._taken += 1
        return True

    def leave(self, holder: str) -> None:
        """Take a place back that ``take`` gave."""
        self._taken -= 1
        self._of[holder] -= 1
        if not self._of[holder]:
            del self._of[holder]
