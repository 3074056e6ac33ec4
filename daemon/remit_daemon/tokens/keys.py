"""Organisation keys: long-lived credentials of programs that nobody can approve each time.

A key is shown once. It is exchanged for five-minute tokens that are bound to the process that presents it, and never inside a
session. We keep its SHA-256, which is enough for 192 random bits. Its text is

    remit_ · 33 characters of 0-9A-Za-z · 6 more: the CRC-32 (zlib's, IEEE 802.3) of all before, in the same digits

so ``remit_[0-9A-Za-z]{39}`` with the right last six is a key of somebody's, and one with others is a typing error, which can be told
without asking anybody. Each has an end, or a date by which a person has looked at it again, or both; after either it is no good.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass

PREFIX = "remit_"
RANDOM = 24  # bytes of a key
MAX_LIFE = 365 * 86400  # seconds to a key's end, or its review
DEFAULT_RATE = (30, 60)  # uses, seconds
MAX_KEYS = 256
MAX_NAME = 64  # characters
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDING = 1e-4  # seconds: sums of floats this large are no more exact
_BODY, _CHECK = 33, 6  # 62^33 > 2^192, 62^6 > 2^32


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key. ``scope`` is as it was given: roles are looked up at each use. Times are seconds since the epoch."""

    id: str
    name: str
    digest: str
    scope: str
    details: str
    audience: str
    created: float
    expires: float | None
    review: float | None
    rate: tuple[int, int]
    uses: int = 0
    last_used: float | None = None

    def state(self, now: float) -> str:
        """Return ``good``, ``expired`` or ``to be reviewed``."""
        if self.expires is not None and self.expires <= now:
            return "expired"
        return "to be reviewed" if self.review is not None and self.review <= now else "good"


def to_json(key: Key) -> str:
    """Return ``key`` as JSON."""
    return json.dumps(asdict(key), separators=(",", ":"))


def key_of(text: str) -> Key:
    """Read a key written by ``to_json``. Raises ValueError, KeyError or TypeError when it is none."""
    raw = json.loads(text)
    raw["rate"] = tuple(raw["rate"])
    return Key(**raw)


def _digits(number: int, width: int) -> str:
    out = ""
    for _ in range(width):
        number, rest = divmod(number, 62)
        out = _DIGITS[rest] + out
    return out


def make(random: bytes) -> str:
    """Return the text of the key of RANDOM bytes."""
    head = PREFIX + _digits(int.from_bytes(random), _BODY)
    return head + _checksum(head)


def _checksum(head: str) -> str:
    return _digits(zlib.crc32(head.encode("ascii")), _CHECK)


def well_formed(text: str) -> bool:
    """Tell whether ``text`` is a key of somebody's: its form and checksum are right."""
    head, check = text[:-_CHECK], text[-_CHECK:]
    body = head.removeprefix(PREFIX)
    return (
        text.startswith(PREFIX)
        and len(body) == _BODY
        and not set(body) - set(_DIGITS)
        and _checksum(head) == check
    )


def digest(text: str) -> str:
    """Return the SHA-256, in hexadecimal, by which a key is known."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Rates:
    """The rate of each key, as a virtual schedule (GCRA, ITU-T I.371): ``uses`` at once, then one each ``seconds / uses``."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def spend(self, key: Key, now: float) -> bool:
        """Count a use of ``key`` at ``now``; tell whether it is within the rate. One that is not costs nothing."""
        uses, seconds = key.rate
        due = max(self._due.get(key.id, 0.0), now)
        if due - now > seconds - seconds / uses + _ROUNDING:
            return False
        self._due[key.id] = due + seconds / uses
        return True

    def forget(self, ident: str) -> None:
        """Forget a key that is no more."""
        self._due.pop(ident, None)
