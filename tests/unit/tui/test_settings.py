"""The person's own file: what it may say, and how it is told what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit_tui import views
from remit_tui.settings import NEVER_ALLOWS, Settings, SettingsError, key_of, read

THEMES = ("textual-dark", "textual-light")


def settings(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "tui.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return read(str(path), views.bindings(), THEMES)


def test_no_file_is_no_settings(tmp_path: Path) -> None:
    assert read(str(tmp_path / "none"), views.bindings(), THEMES) == Settings()


def test_the_keys_as_they_come_are_without_fault(tmp_path: Path) -> None:
    assert settings(tmp_path, "") == Settings()


def test_keys_and_theme(tmp_path: Path) -> None:
    got = settings(
        tmp_path, 'theme = "textual-light"\n[keys]\n"prompts.deny" = "n, ctrl+d"\n"any.quit" = "ctrl+q"\n'
    )
    assert got == Settings("textual-light", {"prompts.deny": "n,ctrl+d", "any.quit": "ctrl+q"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('colour = "x"', "1:1: there is no setting 'colour'"),
        ('theme = "x"', "1:1: no such theme; expected one of textual-dark, textual-light"),
        ("theme = 3", "1:1: no such theme"),
        ("keys = 3", "1:1: keys is a table"),
        ('[keys]\n"prompts.alow" = "y"', "2:1: there is no action 'prompts.alow'"),
        ('[keys]\n"prompts.deny" = 3', "2:1: expected keys as text"),
        ('[keys]\n"prompts.deny" = "nokey"', "2:1: there is no key 'nokey'"),
        (
            '[keys]\n"prompts.deny" = "a"',
            "2:1: in prompts the key a would be both prompts.deny and prompts.allow",
        ),
        ('[keys]\n"prompts.deny" = "y"\n"prompts.allow" = "y"', "the key y would be both"),
        ('[keys]\n"prompts.deny" = "q"', "the key q would be both"),
        ('[keys]\n"prompts.deny" = "enter"', "2:1: Enter keeps its meaning"),
        ("[keys", "tui.toml"),
        ("x = \udcff", "tui.toml"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError) as e:
        settings(tmp_path, text)
    assert says in str(e.value)


@pytest.mark.parametrize(
    "key", [*sorted(NEVER_ALLOWS), "Enter", "shift+enter", "alt+space", "y,enter", " ctrl+m"]
)
def test_no_key_of_going_on_ever_allows(tmp_path: Path, key: str) -> None:
    with pytest.raises(SettingsError, match=r"never allows|keeps its meaning|no key"):
        settings(tmp_path, f'[keys]\n"prompts.allow" = "{key}"')


def test_keys_by_character_and_by_name() -> None:
    assert [key_of(k) for k in ("x", "X", "?", "ctrl+x", "F5", "pagedown", "alt+ö")] == [
        "x", "X", "question_mark", "ctrl+x", "f5", "pagedown", "alt+ö"
    ]  # fmt: skip


def test_what_allows_is_not_on_enter_as_it_comes() -> None:
    for bindings in views.bindings().values():
        for b in bindings:
            if b.id == "prompts.allow":
                assert not set(b.key.split(",")) & NEVER_ALLOWS
            assert "allow" not in b.action or b.id == "prompts.allow"
