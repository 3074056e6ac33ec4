"""A person before the screen, and an approver on a real Unix socket behind it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from textual.pilot import Pilot

from fakes.approver import Approver
from remit_tui.app import RemitApp
from remit_tui.state import QUIET

LIMIT = 10.0  # s for what takes milliseconds


class Desk:
    """The clock stands still unless ``quiet`` moves it."""

    def __init__(self, app: RemitApp, pilot: Pilot[int], server: Approver, clock: list[float]) -> None:
        self.app, self.pilot, self.server, self._clock = app, pilot, server, clock
        self.left = -1

    async def until(self, holds: Callable[[], object], what: str) -> None:
        end = time.monotonic() + LIMIT
        while not holds():
            assert time.monotonic() < end, f"{what}; notice: {self.app.state.notice!r}\n{self.text()}"
            await self.pilot.pause(0.01)

    async def reads(self, *parts: str) -> None:
        await self.until(lambda: all(p in self.text() for p in parts), f"reads {parts}")

    async def shows(self, prompt_id: str) -> None:
        await self.until(
            lambda: (
                self.app.state.shown == prompt_id and (not prompt_id or self.app.state.painted is not None)
            ),
            f"shows {prompt_id!r}",
        )

    async def quiet(self, seconds: float = QUIET + 0.01) -> None:
        await self.until(lambda: self.app.state.painted is not None, "painted")
        await self.later(seconds)

    async def later(self, seconds: float = QUIET + 0.01) -> None:
        self._clock[0] += seconds
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def write(self, text: str) -> None:
        await self.press(*text)

    def text(self) -> str:
        lines = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text for strip in lines)

    def called(self, method: str) -> list[dict[str, Any]]:
        return [params for name, params in self.server.calls if name == method]

    @property
    def notice(self) -> str:
        return self.app.state.notice


@asynccontextmanager
async def desk(
    *records: dict[str, Any],
    size: tuple[int, int] = (80, 24),
    up: bool = True,
    settings: str = "",
    more: Callable[[Approver], None] = lambda _server: None,
) -> AsyncIterator[Desk]:
    with tempfile.TemporaryDirectory() as directory:
        server = Approver(directory + "/approver.sock", list(records))
        more(server)
        if up:
            await server.start()
        clock = [1000.0]
        app = RemitApp(server.path, lambda: clock[0], lambda: 2000.0, settings)
        async with app.run_test(size=size) as pilot:
            d = Desk(app, pilot, server, clock)
            if up:
                await d.until(lambda: app.state.up, "connected")
            yield d
        await asyncio.sleep(0.05)  # the end of the connection arrives
        d.left = server.connected
        await server.stop()


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 60))
