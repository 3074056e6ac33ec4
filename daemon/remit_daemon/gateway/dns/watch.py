"""Names that carry data out: counted under every wildcard that lets them through.

Whoever owns the server of a domain reads every name that is looked up below it. Under ``*.example.com`` an agent could
spell a file out in labels. So, for each rule that covers more than one name, the part of the name that the pattern left open
is looked at: a *telling* name is long or looks random. Content networks have such names too, but few different ones in
a session; a tunnel needs a new one for every hundred bytes.

Two rates (GCRA, as ``laws.conditions``) for each parent domain: different telling names, and different names of any
kind. A name that has passed once passes again. What is over the rate is flagged and becomes a question.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TELLING = (12, 3600.0)  # different telling names, in so many seconds: 12 x 100 bytes are half a private key
ANY = (300, 3600.0)  # different names: a browser on one content network uses some dozens
LONG_LABEL = 40  # characters: the longest word-like labels of real names are below
LONG_OPEN = 80  # characters of the whole open part
RANDOM_FROM = 16  # characters from which letters can look random
RANDOM_BITS = 3.6  # bits a character: English words of that length have 2.5-3.4, base32 above; hex is told by its letters
_HEX = frozenset("0123456789abcdef")
REGISTRIES = frozenset(
    ["ac", "co", "com", "edu", "go", "gob", "gov", "mil", "ne", "net", "nom", "or", "org"]
)
MAX_PASSED = 8192  # names remembered as passed; the oldest go, and are counted again
MAX_PARENTS = 1024  # domains counted at once


def entropy(text: str) -> float:
    """Return the bits that a character of ``text`` carries by the frequencies of its own characters."""
    size = len(text)
    return -sum([n / size * math.log2(n / size) for n in Counter(text).values()]) if size else 0.0


def telling(open_part: str) -> bool:
    """Say whether the part of a name that a wildcard left open is long or looks random."""
    if len(open_part) > LONG_OPEN:
        return True
    for label in open_part.split("."):
        if len(label) >= LONG_LABEL:
            return True
        if len(label) >= RANDOM_FROM:
            digits = sum([c.isdigit() for c in label])
            if digits >= len(label) // 8 and _HEX.issuperset(label.replace("-", "")):
                return True
            if entropy(label) >= RANDOM_BITS and (digits >= len(label) // 8 or "-" not in label):
                return True
    return False


def parent_of(name: str) -> tuple[str, str]:
    """Return (open part, parent domain) of ``name``: the last two labels are the parent, three under registries' own.

    ``a.b.example.co.uk`` -> (``a.b``, ``example.co.uk``). No public-suffix list: a parent that is too broad counts names together
    that belong to different owners, which only asks earlier. One that is too narrow would count nothing: below a domain
    like ``evi.de`` each label that carries data would be a parent of its own.
    """
    labels = name.split(".")
    keep = 3 if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in REGISTRIES else 2
    return ".".join(labels[:-keep]), ".".join(labels[-keep:])


class Watch:
    """The counters of one session."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._passed: OrderedDict[str, None] = OrderedDict()
        self._due: OrderedDict[tuple[str, bool], float] = OrderedDict()
        self._forgiven: set[str] = set()

    def look(self, name: str, wild: bool) -> str:
        """Count ``name``, let through by a rule that covers more names if ``wild``; "" or why it is suspicious."""
        if not wild or name in self._passed:
            return ""
        open_part, parent = parent_of(name)
        if not open_part or parent in self._forgiven:
            return ""
        tells = telling(open_part)
        if tells and not self._take((parent, True), TELLING):
            return f"possible exfiltration: more than {TELLING[0]} long or random names below {parent}"
        if not self._take((parent, False), ANY):
            return f"possible exfiltration: more than {ANY[0]} different names below {parent}"
        self._passed[name] = None
        if len(self._passed) > MAX_PASSED:
            self._passed.popitem(last=False)
        return ""

    def forgive(self, name: str) -> None:
        """A person allowed ``name`` although it is suspicious: its parent domain is not counted again."""
        if len(self._forgiven) < MAX_PARENTS:
            self._forgiven.add(parent_of(name)[1])

    def _take(self, key: tuple[str, bool], rate: tuple[int, float]) -> bool:
        uses, seconds = rate
        now = self._clock()
        due = max(self._due.get(key, now), now)
        if due - now > seconds - seconds / uses + 1e-6:
            return False
        self._due[key] = due + seconds / uses
        self._due.move_to_end(key)
        if len(self._due) > MAX_PARENTS:
            self._due.popitem(last=False)
        return True
