"""The window over the ledger: it shows every row once, wherever it goes, and holds few."""

from __future__ import annotations

import random
from typing import Any

import pytest

from remit_tui import ledger
from remit_tui.ledger import KEEP, PAGE, Fetch, Find, View
from remit_tui.records import Entry


def entry(seq: int, **fields: Any) -> Entry:
    record = {
        "seq": seq,
        "time": float(seq),
        "actor": "agent",
        "op": "read",
        "path": f"/p/{seq}",
        "outcome": "ok",
    }
    return Entry.of(record | fields)


class Book:
    """A ledger of rows 1 to ``size``, of which every ``each``-th is selected, behind the wire's paging."""

    def __init__(self, size: int, each: int = 1, stretch: int = 1000, height: int = 20) -> None:
        self.size, self.each, self.stretch = size, each, stretch
        self.asked = 0
        self.view = View()
        self.outcomes: dict[int, str] = {}
        self.do(ledger.resized(self.view, height))
        self.do(ledger.opened(self.view, {}))

    def do(self, step: ledger.Step) -> None:
        self.view, queue = step
        while queue:
            command = queue.pop(0)
            self.asked += 1
            assert self.asked < 5000, "it never stops asking"
            if isinstance(command, Find):
                seq = int(command.time) if command.time <= self.size else None
                self.view, more = ledger.found(self.view, command.turn, seq)
            else:
                self.view, more = ledger.paged(self.view, command.turn, command.older, *self.page(command))
            queue += more
            self.sound()

    def page(self, fetch: Fetch) -> tuple[tuple[Entry, ...], int | None, int]:
        if fetch.older:
            top = self.size + 1 if fetch.seq is None else min(fetch.seq, self.size + 1)
            low = max(top - 1 - self.stretch, 0)
            seqs = [s for s in range(top - 1, low, -1) if s % self.each == 0][:PAGE]
            on = seqs[-1] if len(seqs) == PAGE else low + 1
            return tuple(map(self.row, seqs[::-1])), on if on > 1 else None, self.size
        assert fetch.seq is not None
        end = fetch.seq + self.stretch
        seqs = [s for s in range(fetch.seq + 1, min(end, self.size) + 1) if s % self.each == 0][:PAGE]
        on = seqs[-1] if len(seqs) == PAGE else end
        return tuple(map(self.row, seqs)), on if on < self.size else None, self.size

    def row(self, seq: int) -> Entry:
        return entry(seq, outcome=self.outcomes.get(seq, "ok"))

    def sound(self) -> None:
        seqs = [e.seq for e in self.view.entries]
        assert len(seqs) <= KEEP
        if seqs:
            assert seqs == list(range(seqs[0], seqs[-1] + 1, self.each)), "a row is missing or stands twice"
            assert 0 <= self.view.place.top <= self.view.place.at < len(seqs)
            assert self.view.place.at < self.view.place.top + self.view.height

    @property
    def at(self) -> int:
        assert self.view.entry is not None
        return self.view.entry.seq

    def move(self, how: str) -> None:
        self.do(ledger.move(self.view, how))


def test_it_opens_at_the_newest_row_and_reads_little() -> None:
    book = Book(1_000_000)
    assert book.at == 1_000_000
    assert book.asked <= 2
    assert len(book.view.entries) <= 2 * PAGE


def test_up_from_the_newest_to_the_oldest_and_back() -> None:
    book = Book(5000)
    for want in range(4999, 0, -1):
        book.move("up")
        assert book.at == want
    book.move("up")
    assert book.at == 1
    for want in range(2, 5001):
        book.move("down")
        assert book.at == want


def test_top_and_bottom_are_those_of_the_ledger() -> None:
    book = Book(1_000_000)
    book.move("top")
    assert book.at == 1
    asked = book.asked
    book.move("bottom")
    assert book.at == 1_000_000
    assert book.asked - asked <= 3


def test_a_rare_row_is_searched_until_the_screen_is_full() -> None:
    book = Book(100_000, each=997)
    assert book.at == 100_000 // 997 * 997
    assert len(book.view.entries) >= book.view.height
    book.move("top")
    assert book.at == 997
    none = Book(100_000, each=200_000)
    assert none.view.entries == ()
    assert none.view.first
    assert not none.view.searching


@pytest.mark.parametrize("each", [1, 7])
def test_jumping_lands_on_the_first_row_of_then(each: int) -> None:
    book = Book(50_000, each)
    book.do(ledger.jump(book.view, 25_001))
    assert book.at == (25_001 + each - 1) // each * each
    book.move("up")
    assert book.at < 25_001
    book.do(ledger.jump(book.view, 60_000))
    assert book.at == 50_000 // each * each


def test_following_stays_at_the_end_until_one_goes_up() -> None:
    book = Book(300)
    book.do(ledger.followed(book.view, True))
    for size in (301, 340, 1000, 5000):
        book.size = size
        book.do(ledger.ticked(book.view))
        assert book.at == size
    book.move("up")
    assert not book.view.follow
    book.size = 6000
    book.do(ledger.ticked(book.view))
    assert book.at == 4999
    book.move("bottom")
    assert book.at == 6000


def test_following_learns_how_an_open_act_ended() -> None:
    book = Book(300)
    book.outcomes[300] = "held"
    book.do(ledger.opened(book.view, {}))
    book.do(ledger.followed(book.view, True))
    assert book.view.entries[-1].outcome == "held"
    book.outcomes[300] = "denied"
    book.do(ledger.ticked(book.view))
    assert book.view.entries[-1].outcome == "denied"


def test_a_reply_to_what_was_left_changes_nothing() -> None:
    book = Book(300)
    old = book.view.turn
    book.do(ledger.opened(book.view, {"op": "read"}))
    before = book.view
    assert ledger.paged(before, old, True, (entry(7),), None, 9) == (before, [])
    assert ledger.found(before, old, 3) == (before, [])
    assert ledger.failed(before, old, "x") == before


def test_a_failure_is_said_and_tried_again() -> None:
    view, commands = ledger.opened(View(height=10), {})
    assert len(commands) == 1
    view = ledger.failed(view, view.turn, "remitd is not there")
    assert view.trouble == "remitd is not there"
    view, commands = ledger.ticked(view)
    assert len(commands) == 1
    assert not view.trouble


def test_an_empty_ledger() -> None:
    book = Book(0)
    for how in ("up", "down", "top", "bottom", "page_up"):
        book.move(how)
    assert book.view.entry is None


def test_any_walk_keeps_the_window_whole() -> None:
    for seed in range(30):
        chance = random.Random(seed)
        book = Book(
            chance.choice([5, 150, 9000]), chance.choice([1, 3, 50]), stretch=chance.choice([60, 1000])
        )
        for _ in range(120):
            what = chance.random()
            if what < 0.8:
                book.move(
                    chance.choice(
                        ["up", "down", "page_up", "page_up", "page_down", "page_down", "top", "bottom"]
                    )
                )
            elif what < 0.9:
                book.do(ledger.jump(book.view, chance.randrange(1, 9500)))
            elif what < 0.95:
                book.do(ledger.resized(book.view, chance.randrange(1, 60)))
            else:
                book.size += chance.randrange(0, 300)
                book.do(ledger.followed(book.view, chance.random() < 0.5))
                book.do(ledger.ticked(book.view))
