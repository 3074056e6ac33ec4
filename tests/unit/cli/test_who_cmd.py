from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from remit_daemon.cli.who_cmd import subject_of, title


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("4711", {"pid": 4711}), (":1.42", {"name": ":1.42"}), ("org.mpris.MediaPlayer2.x", {"name": "org.mpris.MediaPlayer2.x"}),
        ("abc1234", {"commit": "abc1234"}), ("ab" * 20, {"commit": "ab" * 20}),
    ],
)  # fmt: skip
def test_what_is_no_file_is_read_as_a_name(text: str, wanted: dict[str, object]) -> None:
    assert subject_of(text) == wanted


@pytest.mark.parametrize(
    "text", ["4711", "abc1234", "org.a.B", "x@y", "..", "none", "none/x.y.z", "none@HEAD"]
)
def test_anything_else_is_a_path_and_so_is_whatever_exists(text: str, tmp_path: Path) -> None:
    if "none" not in text and text != "..":
        Path(text).touch()
    found = subject_of(text)
    assert list(found) == ["path"]
    assert os.path.isabs(str(found["path"]))


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_revision_of_a_repository_is_a_commit(tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=P", "-c", "user.email=p@example.org"]
    subprocess.run([*git, "init", "-q", "-b", "main", "r"], check=True)
    subprocess.run([*git, "-C", "r", "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    head = subprocess.run(
        [*git, "-C", "r", "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert subject_of("r@main") == subject_of("r@HEAD") == {"commit": head}
    for wrong in ("none", "--help", "HEAD^5"):
        with pytest.raises(ValueError, match="has no commit"):
            subject_of(f"r@{wrong}")


def test_a_process_is_named_in_the_answer_and_nothing_else_is() -> None:
    ours = str(os.getpid())
    assert re.fullmatch(rf"{ours} \(.+, started \d{{4}}-.+\)", title(ours, {"pid": os.getpid()}))
    assert title("999999999", {"pid": 999999999}) == "999999999"
    assert title("/etc/passwd", {"path": "/etc/passwd"}) == "/etc/passwd"
