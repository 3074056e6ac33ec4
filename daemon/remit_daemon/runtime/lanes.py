"""Two lanes on remitd's one loop: the person's, which waits for nobody, and the agents'.

What an agent causes (a frame of its enforcement points, a call of agent.sock, a slice of its journal) is one turn of the agents'
lane: turns are taken one after another in the order of arrival, and the loop looks at the person's sockets between any two. While a
person is active the agents' lane pays for its turns with rest, beyond a burst, so that a flood finds the loop idle most of the time.
What waits stays where it is: in the kernel's socket buffers and in journals, never in a queue of ours; the lane's own queue is of
connections, of which each socket has so many places (``runtime.places``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

ACTIVE = 2.0  # seconds that a person counts as active after a call
REST = 19.0  # so many times as long as its turns the agents' lane rests then
BURST = 0.05  # seconds of turns that need no rest: an ordinary session never has more at once
MAX_REST = 0.1  # seconds of one rest, whatever a turn took


class Lanes:
    """See the module's text. ``clock`` gives seconds and does not go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()
        self._active = -ACTIVE
        self._owed = 0.0  # seconds of rest; what was long ago is not owed
        self._looked = clock()
        self._closed = False

    def close(self) -> None:
        """Let nobody of the agents' have another turn: the daemon ends."""
        self._closed = True

    def person(self) -> None:
        """Note that a person has just called."""
        self._active = self._clock()

    @property
    def quiet(self) -> bool:
        """Tell whether no person is active."""
        return self._clock() - self._active >= ACTIVE

    @asynccontextmanager
    async def agents(self) -> AsyncIterator[None]:
        """Be a turn of the agents' lane: keep it short, and wait for nothing in it. Raises ConnectionError when closed."""
        async with self._turn:
            if self._closed:
                raise ConnectionAbortedError("remitd ends")
            began = self._clock()
            self._owed = max(0.0, self._owed - (began - self._looked))
            try:
                yield
            finally:
                self._looked = self._clock()
                owed = self._owed + (self._looked - began) * REST
                self._owed = min(owed, BURST * REST + MAX_REST)
            await asyncio.sleep(0 if self.quiet else min(MAX_REST, max(0.0, self._owed - BURST * REST)))
