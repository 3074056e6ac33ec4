"""Limits of an agent or a session: how much of something in a time, and the purse from which a point pays.

A limit is a bucket that holds ``amount`` and is emptied evenly over ``seconds`` (the generic cell rate algorithm of ITU-T I.371
with the whole amount as its burst). So in any stretch of W seconds at most ``amount + amount * W / seconds`` goes through.

The bucket itself is remitd's: all sessions of one agent fill the same one. That an act need not wait for remitd, an enforcement
point holds *leases*: a slice that remitd has counted already and that the point spends by itself, in its ``Purse``. What is said
between the two are totals that only grow (given, used, returned), so a frame that is lost or said twice changes nothing. A point
without a lease asks remitd for the single act.

Imported at every ``remit run``: nothing but this package's words.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Costs = Sequence[tuple[str, int]]

# What can be limited, and in which words one and many of it are told. Money is in millionths.
UNITS = {
    "calls": ("act", "acts"),
    "bytes": ("byte", "bytes"),
    "delete": ("deletion", "deletions"),
    "prompts": ("question", "questions"),
    "spend": ("of money", "of money"),
}
MONEY = 1_000_000
SLICES = 16  # a lease is at most so small a part of the amount; smaller amounts have none. Bytes may run over by one
_SPANS = {60: "min", 3600: "h", 86400: "day"}


class Limit:
    """At most ``amount`` of ``kind`` in ``seconds``, for an agent in all its sessions, or for each session.

    ``section`` is where it was written (``user agent.claude``), ``source`` the ``file:line``. ``ident`` names the limit, also
    after its amount was changed.
    """

    __slots__ = ("amount", "kind", "per", "seconds", "section", "source")

    def __init__(self, section: str, per: str, kind: str, amount: int, seconds: int, source: str) -> None:
        self.section, self.per, self.kind = section, per, kind
        self.amount, self.seconds, self.source = amount, seconds, source

    @property
    def ident(self) -> str:
        """The limit's name: section, ``session`` where it is one, kind."""
        return f"{self.section} {'session ' if self.per == 'session' else ''}{self.kind}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Limit) and all(
            getattr(self, n) == getattr(other, n) for n in self.__slots__
        )

    def __hash__(self) -> int:
        return hash((self.ident, self.amount, self.seconds))


def shown(kind: str, amount: float) -> str:
    """Return ``amount`` of ``kind`` in a person's words: ``3 deletions``, ``1.5 GB``, ``0.02``."""
    if kind == "spend":
        return f"{amount / MONEY:.6f}".rstrip("0").rstrip(".")
    if kind == "bytes":
        for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
            if amount >= size:
                return f"{amount / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{int(amount)} {UNITS[kind][int(amount) != 1]}"


def span(seconds: int) -> str:
    """Return ``seconds`` as a rate names them: ``h``, ``day``, ``90s``."""
    return _SPANS.get(seconds, f"{seconds}s")


class _Fund:
    """What a purse holds for one limit; all numbers are totals over the point's life."""

    __slots__ = ("asked", "floor", "given", "returned", "said", "slice", "used")

    def __init__(self) -> None:
        self.floor = 0  # so far bytes may run over while a request is on its way
        self.given = self.used = self.returned = 0
        self.slice = 0  # how much remitd gave at last: half of it gone, more is asked for
        self.said = 0  # what of `used` remitd knows
        self.asked = False  # a request is on its way

    @property
    def left(self) -> int:
        return self.given - self.used - self.returned


class Purse:
    """The leases of one enforcement point. Not safe for several threads.

    ``due`` holds what remitd is to be told, as (limit, used, returned, want); whoever owns the purse sends and empties it.
    """

    def __init__(self, limits: Iterable[Limit]) -> None:
        self.due: list[tuple[str, int, int, bool]] = []
        self._funds: dict[str, _Fund] = {}
        self._of: dict[str, list[str]] = {}
        self.adopt(limits)

    def adopt(self, limits: Iterable[Limit]) -> None:
        """Put other limits in force; what is held of those that stay is kept."""
        self._of = {}
        for limit in limits:
            self._of.setdefault(limit.kind, []).append(limit.ident)
            self._funds.setdefault(limit.ident, _Fund()).floor = limit.amount // SLICES

    def limits(self, kind: str) -> bool:
        """Tell whether anything limits ``kind``."""
        return kind in self._of

    def relevant(self, costs: Costs) -> tuple[tuple[str, int], ...]:
        """Return those of ``costs`` that something limits."""
        return tuple([c for c in costs if c[0] in self._of])

    def take(self, costs: Costs) -> bool:
        """Pay ``costs``, all or nothing; False when a lease is too small, and remitd has to be asked for this act."""
        funds = [(ident, n) for kind, n in costs for ident in self._of.get(kind, ())]
        short = [ident for ident, n in funds if self._funds[ident].left < n]
        if short:
            for ident in short:
                self._want(ident)
            return False
        for ident, n in funds:
            fund = self._funds[ident]
            fund.used += n
            if fund.left * 2 < fund.slice:
                self._want(ident)
        return True

    def pay(self, costs: Costs) -> None:
        """Count ``costs`` that were not to be prevented: also beyond what the leases hold."""
        for kind, n in costs:
            for ident in self._of.get(kind, ()):
                fund = self._funds[ident]
                fund.used += n
                if fund.left <= 0 or fund.left * 2 < fund.slice:
                    self._want(ident)

    def flow(self, amount: int) -> bool:
        """Count ``amount`` bytes that are on their way; False when no more may follow.

        They come faster than remitd answers: while more is asked for, they may run over by one lease.
        """
        open_ = True
        for ident in self._of.get("bytes", ()):
            fund = self._funds[ident]
            open_ = open_ and (fund.left > 0 or (fund.asked and fund.left > -fund.floor))
        self.pay((("bytes", amount),))
        return open_

    def _want(self, ident: str) -> None:
        fund = self._funds[ident]
        if not fund.asked:
            fund.asked = True
            self._tell(ident, True)

    def _tell(self, ident: str, want: bool) -> None:
        fund = self._funds[ident]
        fund.said = fund.used
        self.due.append((ident, fund.used, fund.returned, want))

    def granted(self, ident: str, given: int, recall: bool) -> None:
        """Take what remitd has given in all. ``recall``: give back at once what is not used."""
        fund = self._funds.get(ident)
        if fund is None:
            return
        fund.asked = False
        if recall:
            fund.slice = 0
            fund.given = given
            fund.returned += max(0, fund.left)
            self._tell(ident, False)
            return
        fund.slice = given - fund.given
        fund.given = given

    def settle(self) -> None:
        """Have everything told: the connection is new."""
        self.due.clear()
        for ident, fund in self._funds.items():
            fund.asked = False
            if fund.given or fund.used:
                self._tell(ident, False)

    def close(self) -> None:
        """Give back all that is left: the point ends."""
        for ident, fund in self._funds.items():
            if fund.left > 0 or fund.said != fund.used:
                fund.returned += max(0, fund.left)
                self._tell(ident, False)
