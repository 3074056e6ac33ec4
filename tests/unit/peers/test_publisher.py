"""Who a program is from, by what lies beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from remit_daemon.peers.publisher import publisher_of


def test_a_script_of_a_package(tmp_path: Path) -> None:
    package = tmp_path / "lib/node_modules/@maker/tool"
    (package / "bin").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"name": "@maker/tool", "version": "2.1.3"}))
    assert publisher_of(str(package / "bin/cli.js")) == "npm @maker/tool 2.1.3"


def test_what_is_no_package(tmp_path: Path) -> None:
    place = tmp_path / "node_modules/x/bin"
    place.mkdir(parents=True)
    (tmp_path / "package.json").write_text(json.dumps({"name": "above", "version": "1"}))
    for text in ("", "[]", '{"name": 3}', "[" * 100_000):
        (place.parent / "package.json").write_text(text)
        assert publisher_of(str(place / "cli.js")) == ""
    os.unlink(place.parent / "package.json")
    os.mkfifo(place.parent / "package.json")
    assert publisher_of(str(place / "cli.js")) == ""
    assert publisher_of(str(tmp_path / "cli.js")) == ""


def test_a_debian_package_also_by_its_name_before_usr_was_merged(tmp_path: Path) -> None:
    (tmp_path / "coreutils.list").write_text("/.\n/bin\n/bin/sleep\n")
    (tmp_path / "git:amd64.list").write_text("/usr/bin\n/usr/bin/git\n")
    assert publisher_of("/usr/bin/sleep", str(tmp_path)) == "Debian package coreutils"
    assert publisher_of("/usr/bin/git", str(tmp_path)) == "Debian package git"
    assert publisher_of("/usr/bin/gi", str(tmp_path)) == ""
    assert publisher_of("/usr/bin/git", str(tmp_path / "none")) == ""
    assert publisher_of("/home/u/bin/git", str(tmp_path)) == ""
