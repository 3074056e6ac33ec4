"""The views by name. Each is imported when it is first gone to: the prompts must not wait for the others."""

from __future__ import annotations

from importlib import import_module

from textual.binding import Binding

from remit_tui.frame import VIEWS
from remit_tui.screens.view import Desk, View


def _kind(view: str) -> type[View]:
    found: type[View] = getattr(import_module(f"remit_tui.screens.{view}"), view.capitalize())
    return found


def make(view: str, desk: Desk) -> View:
    """Return a new view of that name, one of frame.VIEWS; prompts, which need their machine, are not made here."""
    return _kind(view)(desk)


def bindings() -> dict[str, list[Binding]]:
    """Return each view's bindings, those that it has from all views included."""
    return {
        view: [
            b
            for kind in _kind(view).__mro__
            if issubclass(kind, View)
            for b in kind.__dict__.get("BINDINGS", [])
            if isinstance(b, Binding)
        ]
        for view in VIEWS
    }
