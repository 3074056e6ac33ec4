"""What a program wants a token for, in the one canonical text that a person reads and a grant remembers.

    https://tool.example files:read=/home/u/p/** files:write=/home/u/p/** log:read

The audience, then every scope with each place that limits it, in order. Blanks and ``%`` inside are written as ``%20`` and ``%25``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remit_daemon.tokens import details as rar
from remit_policy.scopes import HIGH, SCOPES

if TYPE_CHECKING:
    from remit_daemon.tokens.details import Detail


@dataclass(frozen=True, slots=True)
class Wanted:
    """An audience, scopes, and what limits them."""

    audience: str
    scopes: tuple[str, ...]
    details: tuple[Detail, ...]

    def text(self) -> str:
        """Return the canonical text."""
        words = [_word(self.audience)]
        for scope in sorted(self.scopes):
            places = rar.limits(scope, self.details)
            words += [scope] if places is None else [f"{scope}={_word(p)}" for p in sorted(set(places))]
        return " ".join(words)

    def details_json(self) -> str:
        """Return the details as JSON."""
        return json.dumps([d.as_json() for d in self.details], separators=(",", ":"))

    def sentences(self) -> list[str]:
        """Return for each scope what it lets the program do, in words, the sensitive ones marked."""
        out = []
        for scope in sorted(self.scopes):
            known, places = SCOPES[scope], rar.limits(scope, self.details)
            mark = " (SENSITIVE)" if known.sensitive else " (high risk)" if known.risk == HIGH else ""
            if places is not None:
                which = ": " + ", ".join(sorted(set(places)))
            else:
                which = ": all that policy allows" if rar.has_places(scope) else ""
            out.append(f"{known.sentence}{mark}{which}")
        return out


def _word(text: str) -> str:
    return text.replace("%", "%25").replace(" ", "%20")
