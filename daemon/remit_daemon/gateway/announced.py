"""Connections and their announcements, matched by the peer's port, whichever comes first.

The supervisor connects an agent's socket to one of our listeners and says from which local port it did. Whoever connects
without being announced is nobody whom we serve: another process of this machine found the port.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

WAIT = 5.0  # seconds that a connection waits for its announcement: the supervisor says it right after connecting
LIFE = 15.0  # seconds that an announcement waits for its connection; later the port may be another's
MAX_KEPT = 16_384  # of each; more than there are connections


class Announced(Generic[T]):
    """What was announced for each port. ``lasting``: an announcement serves until another replaces it (UDP)."""

    def __init__(self, *, lasting: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._lasting = lasting
        self._clock = clock
        self._told: OrderedDict[tuple[bool, int], tuple[T, float]] = OrderedDict()
        self._waiting: dict[tuple[bool, int], list[asyncio.Future[T]]] = {}

    def tell(self, v6: bool, port: int, what: T) -> None:
        """Take the announcement for a peer's ``port``."""
        # The latest first: who waits longer at the same port is gone, or it could not be another's.
        for future in reversed(self._waiting.get((v6, port), ())):
            if not future.done():
                future.set_result(what)
                if not self._lasting:
                    return
        self._told[v6, port] = (what, self._clock())
        self._told.move_to_end((v6, port))
        if len(self._told) > MAX_KEPT:
            self._told.popitem(last=False)

    async def of(self, v6: bool, port: int, wait: float = WAIT) -> T | None:
        """Return what is announced for the peer's ``port``, within ``wait`` seconds; None when nothing is."""
        key = (v6, port)
        told = self._told.get(key)
        if told is not None:
            if self._lasting:
                self._told.move_to_end(key)
                return told[0]
            del self._told[key]
            if self._clock() - told[1] < LIFE:
                return told[0]
        if len(self._waiting) >= MAX_KEPT:
            return None
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        try:
            async with asyncio.timeout(wait):
                return await future
        except TimeoutError:
            return None
        finally:
            left = self._waiting.get(key)
            if left is not None and future in left:
                left.remove(future)
                if not left:
                    del self._waiting[key]
