"""How the commands' arguments are read: one parser, one kind of complaint, ``--json`` for each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


class Wrong(ValueError):
    """Wrong use; the text says how it is right."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises Wrong, and names an unknown option rather than what follows it."""

    def __init__(self, **kw: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | kw)
        # Taken out beforehand, wherever it stands (``main``); here for --help alone.
        self.add_argument("--json", action="store_true", help="print JSON")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Do as argparse does, but stop at an option that there is none of, unless subcommands have their own."""
        words: Sequence[str] = sys.argv[1:] if args is None else list(args)
        if self._subparsers is None:
            for word in words:
                if word == "--":
                    break
                name = word.partition("=")[0]
                if name.startswith("--") and name not in self._option_string_actions:
                    self.error(f"unknown option {name}")
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise Wrong."""
        raise Wrong(f"{message}\n{self.format_usage().rstrip()}")


def none(text: str) -> None:
    """Say on standard error that a list is empty, so that nobody waits for it; its output stays empty."""
    sys.stderr.write(text + "\n")
