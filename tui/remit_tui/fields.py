"""Fields of what remitd sends: what they must be, and what one is that is missing."""

from __future__ import annotations

from typing import Any


class RecordError(ValueError):
    """remitd sent something that is not what the contract says."""


def text_of(record: dict[str, Any], key: str) -> str:
    """Return a text, "" where there is none. Raises RecordError."""
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError(f"{key} is not text")
    return value


def texts_of(record: dict[str, Any], key: str) -> tuple[str, ...]:
    """Return a list of texts. Raises RecordError."""
    value = record.get(key) or []
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise RecordError(f"{key} is not a list of texts")
    return tuple(value)


def number_of(record: dict[str, Any], key: str) -> float:
    """Return a number, 0 where there is none. Raises RecordError."""
    value = record.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecordError(f"{key} is not a number")
    return value


def list_of(record: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects. Raises RecordError."""
    value = record.get(key) or []
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise RecordError(f"{key} is not a list of objects")
    return value


def maybe_of(record: dict[str, Any], key: str) -> float | None:
    """Return a number, None where there is none. Raises RecordError."""
    return None if record.get(key) is None else number_of(record, key)


def names_of(value: object) -> tuple[str, ...]:
    """Return a list of names, or of processes (``{pid, comm, exe}``) as what they are called and run."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RecordError("not a list of names")
    out = []
    for item in value:
        if isinstance(item, dict):
            program = text_of(item, "exe") or text_of(item, "comm") or "unknown"
            out.append(f"{program} ({int(number_of(item, 'pid'))})")
        elif isinstance(item, str):
            out.append(item)
        else:
            raise RecordError("not a list of names")
    return tuple(out)


def counts_of(value: object) -> tuple[tuple[str, int], ...]:
    """Return the numbers of an object that are not 0."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise RecordError("not an object of numbers")
    return tuple((str(name), int(number_of(value, name))) for name in value if number_of(value, name))
