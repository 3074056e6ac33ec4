"""The desktop's part with a notification server that fails."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from remit_daemon.runtime.desktop import Desktop


class Server:
    """Fails at first, in a way that nobody foresaw."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.failed = asyncio.Event()
        self.done = asyncio.Event()

    async def show(self, replaces: int, summary: str, body: str, actions: tuple[str, ...]) -> int:
        if not self.failed.is_set():
            self.failed.set()
            raise RuntimeError("the library is confused")
        self.shown.append(summary)
        self.done.set()
        return 7

    async def close_notification(self, ident: int) -> None:
        pass


def test_a_fault_of_the_server_does_not_end_the_telling() -> None:
    async def trial() -> list[str]:
        server = Server()
        desktop = Desktop(cast(Any, None), server)
        running = asyncio.create_task(desktop.run())
        for number, agent in enumerate(("claude", "codex")):
            view = {"id": f"p{number}", "agent": agent, "ops": ["read"], "path": "/x", "looking": False}
            desktop.heard("prompt", view)
            async with asyncio.timeout(10):
                await (server.done if number else server.failed).wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return server.shown

    assert asyncio.run(trial()) == ["codex asks"]
