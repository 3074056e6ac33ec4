"""Points in time as a person writes them, in local time: ``14:30``, ``yesterday``, ``11-28 9:05``, ``2h`` (ago)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

EXPECTED = "such as 14:30, yesterday, yesterday 9:00, 2026-11-28, 11-28 14:30, or 2h (ago)"

_AGO = re.compile(r"(\d{1,6})\s*(s|m|min|h|d|w)(?: ago)?")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_DATE = re.compile(r"(?:(\d{4})-)?(\d{1,2})-(\d{1,2})")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_STEPS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}


class MomentError(ValueError):
    """The text names no point in time; it says what would."""


def moment(text: str, now: float) -> float:
    """Return the time that ``text`` means, ``now`` and the result in s since the epoch. Raises MomentError."""
    word = text.strip().lower()
    try:
        if found := _AGO.fullmatch(word):
            return now - int(found[1]) * _UNITS[found[2]]
        today = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
        day, _, clock = word.partition(" ")
        if _CLOCK.fullmatch(day) and not clock:
            day, clock = "", day
            start = today + _clock(clock)
            # A time of the day that is still to come was meant of the day before.
            return (start if start.timestamp() <= now else start - timedelta(days=1)).timestamp()
        return (_day(day, today) + (_clock(clock) if clock else timedelta())).timestamp()
    except (ValueError, OverflowError, OSError):
        raise MomentError(f"'{text}' is no time; expected one {EXPECTED}") from None


def _day(word: str, today: datetime) -> datetime:
    if word in ("today", "yesterday"):
        return today - timedelta(days=word == "yesterday")
    found = _DATE.fullmatch(word)
    if found is None:
        raise ValueError(word)
    year, month, day = found.groups()
    there = today.replace(year=int(year or today.year), month=int(month), day=int(day))
    return there if year or there <= today else there.replace(year=there.year - 1)


def _clock(word: str) -> timedelta:
    found = _CLOCK.fullmatch(word)
    if found is None:
        raise ValueError(word)
    hour, minute, second = (int(part or 0) for part in found.groups())
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(word)
    return timedelta(hours=hour, minutes=minute, seconds=second)


def stepped(time: float, unit: str, direction: int) -> float:
    """Return where the ``unit`` (minute, hour or day, local) next to that of ``time`` begins; ``direction`` is 1 or -1.

    Backwards it is the beginning of the unit that ``time`` is in, unless it is that already.
    """
    here = datetime.fromtimestamp(time)
    start = here.replace(second=0, microsecond=0)
    if unit in ("hour", "day"):
        start = start.replace(minute=0)
    if unit == "day":
        start = start.replace(hour=0)
    if direction < 0 and start < here:
        return start.timestamp()
    return (start + direction * _STEPS[unit]).timestamp()
