"""A cursor in a list and the part of the list that is in view: numbers only."""

from __future__ import annotations

from dataclasses import dataclass

MOVES = ("up", "down", "page_up", "page_down", "top", "bottom")


@dataclass(frozen=True, slots=True)
class Place:
    """``at`` is the selected row, ``top`` the first in view; both 0 in an empty list."""

    at: int = 0
    top: int = 0


START = Place()


def within(place: Place, count: int, height: int) -> Place:
    """Return ``place`` made fit for a list of ``count`` rows of which ``height`` are in view."""
    at = min(max(place.at, 0), max(count - 1, 0))
    height = max(height, 1)
    top = min(max(place.top, at - height + 1), at, max(count - height, 0))
    return Place(at, max(top, 0))


def moved(place: Place, move: str, count: int, height: int) -> Place:
    """Return ``place`` after ``move``, one of MOVES."""
    page = max(height - 1, 1)
    by = {"up": -1, "down": 1, "page_up": -page, "page_down": page, "top": -count, "bottom": count}[move]
    return within(Place(place.at + by, place.top), count, height)
