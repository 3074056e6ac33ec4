"""What is not asked about: our own process stands in for the account."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit_daemon.supervisor import account
from remit_daemon.supervisor.act import CONTINUE, Act
from remit_daemon.supervisor.resolve import Pin, Place

OURS = os.geteuid() != 0  # root is refused nothing


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "file").touch()
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut").chmod(0o555)
    yield tmp_path
    (tmp_path / "shut").chmod(0o755)


def pin(path: Path | str) -> Pin:
    return Pin(os.open(path, os.O_PATH | os.O_CLOEXEC))


def refused(op: str, thing: Pin | Place, *more: tuple[str, str]) -> bool:
    act = Act(op, ((op, thing.path), *more), lambda: CONTINUE, (thing,))
    try:
        return account.refuses(act)
    finally:
        act.close()


@pytest.mark.parametrize("op", ["create", "delete"])
def test_a_name_in_a_directory_that_is_not_to_be_changed(tree: Path, op: str) -> None:
    assert refused(op, Place(pin(tree / "shut"), b"x", False)) is OURS
    assert not refused(op, Place(pin(tree / "open"), b"x", False))


def test_a_file_that_is_not_there_is_its_directory_s_matter(tree: Path) -> None:
    place = Place(pin(tree / "open"), b"x", False)
    assert not refused("create", place, ("write", place.path))


@pytest.mark.parametrize(("op", "mode"), [("read", 0o200), ("write", 0o400)])
def test_a_file_by_its_mode(tree: Path, op: str, mode: int) -> None:
    assert not refused(op, pin(tree / "open" / "file"))
    (tree / "open" / "file").chmod(mode)
    assert refused(op, pin(tree / "open" / "file")) is OURS


def test_a_mode_is_its_owner_s_to_change(tree: Path) -> None:
    (tree / "open" / "file").chmod(0)
    assert not refused("metadata", pin(tree / "open" / "file"))
    assert refused("metadata", pin("/etc/passwd")) is OURS


def test_the_other_path_of_an_act_is_not_mistaken_for_the_pinned_one(tree: Path) -> None:
    (tree / "open" / "file").chmod(0o400)
    one = pin(tree / "open" / "file")
    assert not refused("read", one, ("write", str(tree / "elsewhere")))


def test_what_is_no_file_is_asked_about(tree: Path) -> None:
    assert not account.refuses(Act("connect", (("connect", "example.org:443"),), lambda: CONTINUE))
