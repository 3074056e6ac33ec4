"""Where a key stands in TOML text: tomllib forgets positions, and an error needs its line and column.

``locate`` walks the text once, following table headers, dotted keys, arrays and inline tables. It expects
text that tomllib has accepted, and answers with the nearest known ancestor when it loses its way.
"""

from __future__ import annotations

Path = tuple[str | int, ...]


def locate(text: str) -> dict[Path, tuple[int, int]]:
    """Return for each key path (names, and numbers in arrays) its 1-based line and column."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except (IndexError, ValueError, RecursionError):
        pass  # what was found so far stands; the rest falls back to an ancestor
    return scanner.found


def position(found: dict[Path, tuple[int, int]], path: Path) -> tuple[int, int]:
    """Return the place of ``path`` or of its nearest ancestor; the start of the file if there is none."""
    while path:
        if path in found:
            return found[path]
        path = path[:-1]
    return (1, 1)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, tuple[int, int]] = {}
        self._lines = [0]
        for number, c in enumerate(text):
            if c == "\n":
                self._lines.append(number + 1)
        self._arrays: dict[Path, int] = {}

    def _mark(self, path: Path, at: int) -> None:
        low, high = 0, len(self._lines)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._lines[middle] <= at else (low, middle)
        for size in range(1, len(path) + 1):
            self.found.setdefault(path[:size], (low + 1, at - self._lines[low] + 1))

    def _blank(self, newlines: bool = True) -> None:
        while self.at < len(self.text):
            c = self.text[self.at]
            if c == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif c in " \t\r" or (newlines and c == "\n"):
                self.at += 1
            else:
                return

    def document(self) -> None:
        table: Path = ()
        while True:
            self._blank()
            if self.at >= len(self.text):
                return
            start = self.at
            if self.text.startswith("[[", self.at):
                self.at += 2
                table = self._key()
                number = self._arrays.get(table, -1) + 1
                self._arrays[table] = number
                table = (*table, number)
                self._mark(table, start)
                self.at += 2
            elif self.text[self.at] == "[":
                self.at += 1
                table = self._key()
                self._mark(table, start)
                self.at += 1
            else:
                self._pair(table)

    def _pair(self, table: Path) -> None:
        start = self.at
        path = (*table, *self._key())
        self._mark(path, start)
        self.at += 1  # =
        self._value(path)

    def _key(self) -> tuple[str, ...]:
        parts: list[str] = []
        while True:
            self._blank(newlines=False)
            if self.text[self.at] in "\"'":
                parts.append(self._string())
            else:
                start = self.at
                while self.text[self.at].isalnum() or self.text[self.at] in "-_":
                    self.at += 1
                if self.at == start:
                    raise ValueError
                parts.append(self.text[start : self.at])
            self._blank(newlines=False)
            if self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def _string(self) -> str:
        quote = self.text[self.at]
        if self.text.startswith(quote * 3, self.at):
            end = self.at + 3
            while not self.text.startswith(quote * 3, end):
                end += 2 if self.text[end] == "\\" and quote == '"' else 1
            while self.text.startswith(quote, end + 3):
                end += 1
            value = self.text[self.at + 3 : end]
            self.at = end + 3
            return value
        end = self.at + 1
        while self.text[end] != quote:
            end += 2 if self.text[end] == "\\" and quote == '"' else 1
        value = self.text[self.at + 1 : end]
        self.at = end + 1
        if quote == '"' and "\\" in value:
            import tomllib

            value = tomllib.loads(f'k = "{value}"')["k"]
        return value

    def _value(self, path: Path) -> None:
        self._blank(newlines=False)
        c = self.text[self.at]
        if c in "\"'":
            self._string()
        elif c == "[":
            self.at += 1
            number = 0
            while True:
                self._blank()
                if self.text[self.at] == "]":
                    break
                if self.text[self.at] == ",":
                    self.at += 1
                    continue
                self._mark((*path, number), self.at)
                self._value((*path, number))
                number += 1
            self.at += 1
        elif c == "{":
            self.at += 1
            while True:
                self._blank()
                if self.text[self.at] == "}":
                    break
                if self.text[self.at] == ",":
                    self.at += 1
                    continue
                self._pair(path)
            self.at += 1
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}\n#":
                self.at += 1
