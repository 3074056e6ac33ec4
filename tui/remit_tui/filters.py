"""What a person writes to filter the ledger, as the wire's Filter.

Words of the form ``name:value``; of several all must hold. A value with blanks is quoted. A word alone is a path when it
begins with ``/`` or ``~``, ``denied``, an actor (``human``, ``agent``, ``remit``), or else an agent's name.
"""

from __future__ import annotations

import os
import shlex
from typing import Any

from remit_tui.moments import MomentError, moment

NAMES = ("actor", "agent", "session", "op", "outcome", "path", "host", "rule", "since", "until")
ACTORS = ("human", "agent", "remit")
EXPECTED = "words such as claude, denied, ~/project, op:write, host:pypi.org, since:yesterday, human"


class FilterError(ValueError):
    """The text is no filter; it says what would be."""


def parse(text: str, now: float, home: str = "") -> dict[str, Any]:
    """Return ``text`` as parameters of the wire's ``log``; ``now`` in s since the epoch. Raises FilterError."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise FilterError("a quotation mark is not closed") from None
    out: dict[str, Any] = {}
    for word in words:
        name, colon, value = word.partition(":")
        if not colon or name not in NAMES:
            name, value = _bare(word)
        if name in out:
            raise FilterError(f"{name} is given twice")
        out[name] = _value(name, value, now, home or os.path.expanduser("~"))
    return out


def _bare(word: str) -> tuple[str, str]:
    if word[:1] in ("/", "~"):
        return "path", word
    if word == "denied":
        return "denied", "yes"
    if word in ACTORS:
        return "actor", word
    if ":" in word:
        raise FilterError(f"there is no filter '{word.partition(':')[0]}'; expected {', '.join(NAMES)}")
    return "agent", word


def _value(name: str, value: str, now: float, home: str) -> Any:
    if not value:
        raise FilterError(f"{name}: says nothing; expected {EXPECTED}")
    if name == "denied":
        return True
    if name in ("since", "until"):
        try:
            return moment(value.replace("_", " "), now)
        except MomentError as e:
            raise FilterError(str(e)) from None
    if name == "actor" and value not in ACTORS:
        raise FilterError(f"there is no actor '{value}'; one of {', '.join(ACTORS)}")
    if name == "path":
        if value == "~" or value.startswith("~/"):
            value = home + value[1:]
        if not value.startswith("/"):
            raise FilterError(f"'{value}' is no absolute path")
    return value


def written(name: str, value: str) -> str:
    """Return the word that filters by ``name`` and ``value``, to be put into a filter's text."""
    return f"{name}:{shlex.quote(value)}"
