"""What this session knows about names: pinned answers, which names led to an address, stand-in addresses.

- *Pins*: the addresses that a name first had are the ones it keeps, for every look-up of the session, so no later answer
  can turn a name that was allowed into another machine. A pin is let go after PIN_LIFE, since long sessions outlive
  servers, or when none of its addresses could be reached (not before PIN_LEAST: failing on purpose is no way to
  re-bind). What comes then passes the same rules.
- *History*: address -> the names that were looked up and had it, the latest first. A connect to an address is a
  connect to those names. A CNAME's target was never asked for: it is not among them.
- *Stand-ins*: a name whose use is a question gets an address of 198.18.0.0/15 (RFC 2544: never routed) at once, bound to it
  for the session; the question is asked at the connect. Addresses are not given twice until the range is through.

Every table is bounded; the least recently used entry goes. A forgotten address is an address without a name.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PIN_LIFE = 3600.0  # seconds that a name keeps its addresses: rotation at servers is slower, an agent's task shorter
PIN_LEAST = 30.0  # seconds that it keeps them although none answers
MAX_PINS = 4096  # names; about 2 MB. npm's or pip's largest installs use some dozens
MAX_HISTORY = 8192  # addresses with names
MAX_NAMES_EACH = 16  # names of one address that are candidates: large front ends carry thousands
MAX_ADDRESSES = 32  # of one answer; more do not fit a plain UDP answer either
MAX_STAND_INS = 4096

STAND_INS = ipaddress.ip_network("198.18.0.0/15")
_FIRST = int(STAND_INS.network_address) + 1
_COUNT = STAND_INS.num_addresses - 2


class Pin:
    """The addresses of a name of one family, in the nameserver's order; ``ttl`` as it said, ``chain`` the CNAMEs passed."""

    __slots__ = ("addresses", "chain", "since", "ttl")

    def __init__(self, addresses: tuple[str, ...], ttl: int, chain: tuple[str, ...], since: float) -> None:
        self.addresses = addresses
        self.ttl = ttl
        self.chain = chain
        self.since = since


class Names:
    """The tables of one session. ``clock`` counts seconds and does not go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pins: OrderedDict[tuple[str, int], Pin] = OrderedDict()
        self._history: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self._stand_ins: OrderedDict[str, str] = OrderedDict()  # name -> address
        self._behind: dict[str, str] = {}  # address -> name
        self._next = 0

    # -- pins --------------------------------------------------------------------------------------

    def pinned(self, name: str, family: int) -> Pin | None:
        """Return the pin of ``name`` for ``family`` (4 or 6), None when there is none in force."""
        pin = self._pins.get((name, family))
        if pin is None:
            return None
        if self._clock() - pin.since >= PIN_LIFE:
            del self._pins[name, family]
            return None
        self._pins.move_to_end((name, family))
        return pin

    def pin(
        self, name: str, family: int, addresses: Iterable[str], ttl: int, chain: Iterable[str] = ()
    ) -> Pin:
        """Pin ``addresses`` unless a pin is in force; returns the one that is."""
        held = self.pinned(name, family)
        if held is None:
            kept = tuple(dict.fromkeys(addresses))[:MAX_ADDRESSES]
            held = Pin(kept, ttl, tuple(chain), self._clock())
            self._pins[name, family] = held
            if len(self._pins) > MAX_PINS:
                self._pins.popitem(last=False)
        return held

    def unpin(self, name: str) -> None:
        """Let the pins of ``name`` go: none of its addresses could be reached."""
        for family in (4, 6):
            pin = self._pins.get((name, family))
            if pin is not None and self._clock() - pin.since >= PIN_LEAST:
                del self._pins[name, family]

    # -- history -----------------------------------------------------------------------------------

    def remember(self, address: str, name: str) -> None:
        """Note that ``name`` was looked up and ``address`` was given for it."""
        names = self._history.get(address)
        if names is None:
            names = self._history[address] = OrderedDict()
            if len(self._history) > MAX_HISTORY:
                self._history.popitem(last=False)
        else:
            self._history.move_to_end(address)
        names[name] = None
        names.move_to_end(name)
        if len(names) > MAX_NAMES_EACH:
            names.popitem(last=False)

    def of(self, address: str) -> tuple[str, ...]:
        """Return the names that were looked up and had ``address``, the latest first."""
        names = self._history.get(address)
        if names is None:
            return ()
        self._history.move_to_end(address)
        return tuple(reversed(names))

    # -- stand-ins ---------------------------------------------------------------------------------

    def stand_in(self, name: str) -> str:
        """Return the stand-in address of ``name``, a new one when it has none."""
        address = self._stand_ins.get(name)
        if address is not None:
            self._stand_ins.move_to_end(name)
            return address
        if len(self._stand_ins) >= MAX_STAND_INS:
            _, old = self._stand_ins.popitem(last=False)
            del self._behind[old]
        while True:
            address = str(ipaddress.ip_address(_FIRST + self._next))
            self._next = (self._next + 1) % _COUNT
            if address not in self._behind:
                break
        self._stand_ins[name] = address
        self._behind[address] = name
        return address

    def behind(self, address: str) -> str:
        """Return the name that the stand-in ``address`` is for, "" when it is for none."""
        name = self._behind.get(address, "")
        if name:
            self._stand_ins.move_to_end(name)
        return name

    @staticmethod
    def is_stand_in(address: str) -> bool:
        """Say whether ``address`` is of the range that stand-ins are from."""
        return address.startswith(("198.18.", "198.19."))

    def sizes(self) -> dict[str, int]:
        """Return how many entries each table holds."""
        return {
            "pins": len(self._pins),
            "history": len(self._history),
            "stand_ins": len(self._stand_ins),
        }
