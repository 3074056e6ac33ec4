"""``tui.toml`` in remit's configuration directory: a theme, and keys of the person's own.

    theme = "textual-light"

    [keys]
    "prompts.deny" = "n"
    "any.next_view" = "ctrl+right,]"

A file with a fault changes nothing: the screen that answers prompts must come up, so it does, with what it has, and says where the
fault is. What answers with allow is never put on a key that a person presses to go on (Enter, space, Tab, Esc).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from textual.binding import Binding
from textual.keys import KEY_DISPLAY_ALIASES, Keys, _character_to_key

from remit_policy.locate import locate, position

MOST = 1 << 16  # bytes of a settings file
ALLOW = "prompts.allow"
# Ctrl-J and Ctrl-M are what terminals send for Enter, Ctrl-I for Tab, Ctrl-[ for Esc.
NEVER_ALLOWS = frozenset(
    {
        "enter",
        "ctrl+m",
        "ctrl+j",
        "space",
        "tab",
        "ctrl+i",
        "escape",
        "ctrl+left_square_bracket",
        "backspace",
        "ctrl+h",
    }
)
_FIXED = {"enter": "Enter", "ctrl+c": "Ctrl-C", "ctrl+p": "Ctrl-P"}  # keys whose meaning stays
_MODIFIED = re.compile(r"(?:(?:ctrl|alt|shift|super)\+)*")
_NAMED = frozenset({str(k.value) for k in Keys} | set(KEY_DISPLAY_ALIASES))


class SettingsError(ValueError):
    """The file has a fault; the text names its place and what would be right."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``keys`` maps a binding's id to its keys, joined by commas, as Textual takes them."""

    theme: str = ""
    keys: dict[str, str] = field(default_factory=dict)


def read(path: str, bindings: Mapping[str, Iterable[Binding]], themes: Iterable[str]) -> Settings:
    """Return the settings in file ``path``, the defaults when there is none.

    ``bindings`` are those of each view, by its name. Raises SettingsError.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(MOST + 1)
    except FileNotFoundError:
        return Settings()
    except OSError as e:
        raise SettingsError(f"{path}: {e.strerror}") from None
    try:
        if len(raw) > MOST:
            raise ValueError(f"larger than {MOST} bytes")
        text = raw.decode()
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as e:
        raise SettingsError(f"{path}: {str(e) or 'nested too deeply'}") from None
    return _checked(path, text, table, bindings, tuple(themes))


def _checked(
    path: str,
    text: str,
    table: dict[str, object],
    bindings: Mapping[str, Iterable[Binding]],
    themes: tuple[str, ...],
) -> Settings:
    found = locate(text)

    def fault(message: str, *where: str) -> SettingsError:
        line, column = position(found, where)
        return SettingsError(f"{path}:{line}:{column}: {message}")

    for name in table:
        if name not in ("theme", "keys"):
            raise fault(f"there is no setting '{name}'; expected theme or keys", name)
    theme = table.get("theme", "")
    if not isinstance(theme, str) or (theme and theme not in themes):
        raise fault(f"no such theme; expected one of {', '.join(sorted(themes))}", "theme")
    keys = table.get("keys", {})
    if not isinstance(keys, dict):
        raise fault("keys is a table of actions and their keys", "keys")
    known = {b.id: b for some in bindings.values() for b in some if b.id}
    chosen: dict[str, str] = {}
    for name, value in keys.items():
        if name not in known:
            raise fault(
                f"there is no action '{name}'; expected one of {', '.join(sorted(known))}", "keys", name
            )
        if not isinstance(value, str) or not value:
            raise fault('expected keys as text, such as "x" or "ctrl+x,f9"', "keys", name)
        try:
            chosen[name] = ",".join(key_of(part) for part in _split(value))
        except ValueError as e:
            raise fault(str(e), "keys", name) from None
        for key in chosen[name].split(","):
            if name == ALLOW and (key in NEVER_ALLOWS or key.rpartition("+")[2] in NEVER_ALLOWS):
                raise fault(f"{key} never allows: it is pressed to go on", "keys", name)
            if key in _FIXED:
                raise fault(f"{_FIXED[key]} keeps its meaning", "keys", name)
    for view, some in bindings.items():
        used: dict[str, str] = {}
        for binding in some:
            name = binding.id or binding.action
            # A binding stands once for each of its keys, and what replaces them counts once.
            for key in (
                chosen[name].split(",") if name in chosen else [_one(k) for k in binding.key.split(",")]
            ):
                if used.setdefault(key, name) != name:
                    other = used[key]
                    at = name if name in chosen else other
                    raise fault(f"in {view} the key {key} would be both {other} and {name}", "keys", at)
    return Settings(theme, chosen)


def _split(value: str) -> list[str]:
    """Split at commas; a comma alone, or doubled at an end, is the key itself."""
    if value == ",":
        return [","]
    return value.split(",")


def _one(key: str) -> str:
    return _character_to_key(key) if len(key) == 1 else key


def key_of(text: str) -> str:
    """Return Textual's name of the key ``text``: a character, a name, or either behind ctrl+, alt+ or shift+.

    Raises ValueError saying what is wrong.
    """
    text = text.strip()
    prefix = _MODIFIED.match(text)
    head = prefix.group() if prefix else ""
    rest = text[len(head) :]
    if len(rest) == 1 and rest.isprintable():
        return head + _character_to_key(rest)
    name = rest.lower()
    if name in _NAMED or re.fullmatch(r"f([1-9]|1[0-9]|2[0-4])", name):
        return head + name
    raise ValueError(
        f"there is no key '{text}'; expected a character, or a name such as f5, ctrl+x, pagedown"
    )
