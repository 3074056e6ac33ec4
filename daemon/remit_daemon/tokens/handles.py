"""Refresh handles: what a program gets beside a token that a person granted for longer than once.

A handle is used once and gives the next one (RFC 9700 4.14.2). Presented again, it was copied, or its answer was lost: the whole
family ends, with every token that was made under it. It is good for the process that it was given to alone; another that
presents it gets nothing and changes nothing, or whoever sees one could end what is another's. Only SHA-256 digests are kept,
and those in memory: after a restart the program asks again, and a grant answers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remit_daemon.tokens.issuer import MAX_TEXT, TokenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.tokens.wanted import Wanted

PREFIX = "rr_"
MAX_FAMILIES = 2000  # at once
MAX_OF_PROCESS = 64  # families: a session has all its programs in one
MAX_SPENT = 64  # handles of one family that are known as used; older ones are just none of ours


@dataclass(frozen=True, slots=True)
class Family:
    """What the handles of one family stand for. ``id`` is the ``txn`` of its tokens; ``expires`` is in seconds since the epoch."""

    id: str
    bound: str
    agent: str
    wanted: Wanted
    grant_id: str
    expires: float
    session: str = ""
    client: str = ""


class Reused(TokenError):
    """A handle was presented a second time; ``family`` is over."""

    def __init__(self, family: Family) -> None:
        super().__init__(
            "invalid_grant", "the handle was used before: it, and all that came of it, is revoked"
        )
        self.family = family


class Handles:
    """All families. ``clock`` gives seconds since the epoch, ``name`` a fresh secret."""

    def __init__(self, clock: Callable[[], float], name: Callable[[], str]) -> None:
        self._clock = clock
        self._name = name
        self._families: dict[str, Family] = {}
        self._current: dict[str, bytes] = {}  # family → the digest that is good
        self._spent: dict[str, list[bytes]] = {}
        self._owner: dict[bytes, str] = {}  # digest, good or spent → family

    def open(self, family: Family) -> str:
        """Return the first handle of ``family``. Raises TokenError when there are too many."""
        now = self._clock()
        for old in [f.id for f in self._families.values() if f.expires <= now]:
            self._end(old)
        mine = sum(f.bound == family.bound for f in self._families.values())
        if len(self._families) >= MAX_FAMILIES or mine >= MAX_OF_PROCESS:
            raise TokenError("temporarily_unavailable", "too many refresh handles are in use")
        self._families[family.id] = family
        self._spent[family.id] = []
        return self._next(family.id)

    def _next(self, ident: str) -> str:
        text = PREFIX + self._name()
        self._current[ident] = _digest(text)
        self._owner[self._current[ident]] = ident
        return text

    def look(self, text: str, presenter: str) -> Family:
        """Return the family of a handle that ``presenter`` may use now; nothing is used yet. Raises Reused, TokenError."""
        digest = _digest(text[: MAX_TEXT + 1])
        family = self._families.get(self._owner.get(digest, ""))
        if family is None or family.bound != presenter:
            raise TokenError("invalid_grant", "no handle of this process")
        if self._current[family.id] != digest:
            self._end(family.id)
            raise Reused(family)
        if family.expires <= self._clock():
            self._end(family.id)
            raise TokenError("invalid_grant", "the handle has expired")
        return family

    def family(self, text: str) -> Family | None:
        """Return the family of a handle, good or used, whoever has it; None when it is of none."""
        return self._families.get(self._owner.get(_digest(text[: MAX_TEXT + 1]), ""))

    def rotate(self, family: Family) -> str:
        """Use up the good handle of ``family``, as ``look`` found it, and return the next."""
        spent = self._spent[family.id]
        spent.append(self._current[family.id])
        if len(spent) > MAX_SPENT:
            del self._owner[spent.pop(0)]
        return self._next(family.id)

    def end(self, *, family: str = "", grant_id: str = "", bound: str = "") -> list[str]:
        """End a family, or those of a grant or a process; returns their identifiers."""
        gone = [
            f.id
            for f in self._families.values()
            if (family and f.id == family)
            or (grant_id and f.grant_id == grant_id)
            or (bound and f.bound == bound)
        ]
        for ident in gone:
            self._end(ident)
        return gone

    def _end(self, ident: str) -> None:
        del self._families[ident]
        for digest in (self._current.pop(ident), *self._spent.pop(ident)):
            del self._owner[digest]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
