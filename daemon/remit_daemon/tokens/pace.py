"""How fast a program may ask whether its question is answered: the pace of RFC 8628 3.5.

Sooner than its interval is ``slow_down``, and adds five seconds to the interval "for this and all subsequent requests".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 1  # seconds; the RFC's five are for servers far away
STEP = 5  # RFC 8628 3.5
MAX_KEPT = 4096  # requests whose pace is known; the one asked longest ago is forgotten, and begins anew


class Pace:
    """The paces of all requests. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, int]] = {}

    def start(self, request: str) -> int:
        """Take up ``request``, made now; returns its interval in seconds."""
        self._keep(request, INTERVAL)
        return INTERVAL

    def too_fast(self, request: str) -> bool:
        """Note a poll; tell whether it came too soon."""
        last, interval = self._known.pop(request, (0.0, INTERVAL))
        early = self._clock() - last < interval
        self._keep(request, interval + STEP if early else interval)
        return early

    def _keep(self, request: str, interval: int) -> None:
        self._known[request] = (self._clock(), interval)
        if len(self._known) > MAX_KEPT:
            del self._known[next(iter(self._known))]

    def end(self, request: str) -> None:
        """Forget ``request``."""
        self._known.pop(request, None)
