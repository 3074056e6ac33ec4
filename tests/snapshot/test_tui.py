"""Few pictures of the screen; ``pytest --snapshot-update`` redraws them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from textual.pilot import Pilot

from fakes.approver import HOSTILE, Approver, entry, prompt, session
from remit_tui.app import RemitApp


class Scene:
    """A screen on a fake approver, its clocks standing still."""

    def __init__(self, directory: str) -> None:
        records = [
            prompt(1, path=HOSTILE, ops=["create", "write"], count=3),
            prompt(2),
            prompt(3, agent="codex"),
        ]
        self.server = Approver(
            directory + "/approver.sock", records, [session(1), session(2, agent="codex")]
        )
        self.clock = [1000.0]
        self.app = RemitApp(self.server.path, lambda: self.clock[0], lambda: 1100.0)

    async def until(self, pilot: Pilot[Any], what: str) -> None:
        for _ in range(500):
            if getattr(self.app.state, what) not in (None, False):
                await pilot.pause()
                return
            await pilot.pause(0.01)
        raise AssertionError(f"never {what}")


@pytest.fixture
def scene(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield Scene(str(tmp_path))
    monkeypatch.undo()
    time.tzset()


def test_a_hostile_name(snap_compare: Any, scene: Scene) -> None:
    async def before(pilot: Pilot[Any]) -> None:
        await scene.server.start()
        await scene.until(pilot, "painted")

    assert snap_compare(scene.app, run_before=before, terminal_size=(80, 24))


def test_the_rule_before_it_is_saved(snap_compare: Any, scene: Scene) -> None:
    async def before(pilot: Pilot[Any]) -> None:
        await scene.server.start()
        await scene.until(pilot, "painted")
        scene.clock[0] += 1
        await pilot.press("5", "s", "a")
        await scene.until(pilot, "ruled")
        await asyncio.sleep(0.3)

    assert snap_compare(scene.app, run_before=before, terminal_size=(80, 24))


def test_the_ledger(snap_compare: Any, scene: Scene) -> None:
    scene.server.rows = [entry(n, op=("read", "write", "connect")[n % 3]) for n in range(1, 61)]
    scene.server.rows[57] |= {"actor": "human", "op": "answer", "verdict": "deny", "outcome": ""}
    scene.server.rows[58] |= {"actor": "remit", "op": "session", "path": "", "note": "started"}
    scene.server.rows[59] |= {"path": HOSTILE, "verdict": "deny", "outcome": "refused"}

    async def before(pilot: Pilot[Any]) -> None:
        await scene.server.start()
        await scene.until(pilot, "painted")
        await pilot.press("f4")
        for _ in range(500):
            if getattr(scene.app.base, "view", None) and scene.app.base.view.entries:  # type: ignore[union-attr]
                break
            await pilot.pause(0.01)
        await pilot.pause(0.1)

    assert snap_compare(scene.app, run_before=before, terminal_size=(120, 40))
