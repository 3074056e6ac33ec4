from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from remit_daemon.kernel.objects import born_ns, object_of
from remit_daemon.ledger.files import Commit, Left, Unsettled
from remit_daemon.runtime import contents
from remit_daemon.runtime.contents import Ask, Seen, look_at

LATER = 10 * 10**9


def object_at(path: Path) -> str:
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return object_of(fd)
    finally:
        os.close(fd)


def ask(path: Path, object: str = "", ended_ns: int = 0, program: tuple[str, ...] = ()) -> Ask:
    of = Unsettled(object or object_at(path), "s1", "claude", str(path), 1, 0)
    return Ask(of, 1_700_000_000.0, ended_ns, program)


def look(*asked: Ask) -> Seen:
    return look_at(list(asked), time.time_ns() + LATER)


def left(seen: Seen) -> Left:
    (found,) = seen.found
    assert isinstance(found, Left)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_text("content")
    if not object_at(path):
        pytest.skip("this file system does not name its files")
    return path


def test_an_object_keeps_its_name_and_a_copy_has_another(file: Path) -> None:
    before = object_at(file)
    file.write_text("other content")
    moved = file.rename(file.with_name("g"))
    assert object_at(moved) == before
    copy = file.with_name("h")
    copy.write_bytes(moved.read_bytes())
    assert object_at(copy) != before
    moved.unlink()
    moved.write_text("anew")
    assert object_at(moved) != before


def test_a_file_system_without_generations_names_nothing() -> None:
    fd = os.open("/proc/self/status", os.O_PATH)
    assert object_of(fd) == ""
    os.close(fd)
    assert object_of(-1) == ""
    assert born_ns(-1) == 0


def test_a_quiet_file_is_hashed(file: Path) -> None:
    found = left(look(ask(file)))
    st = file.stat()
    assert (found.sha256, found.size) == (hashlib.sha256(b"content").hexdigest(), st.st_size)
    assert found.ctime_ns == st.st_ctime_ns


def test_a_file_that_is_being_written_waits(file: Path) -> None:
    of = ask(file)
    seen = look_at([of], time.time_ns())
    assert (seen.found, seen.done, seen.later) == ([], [], [of.of])


def test_after_the_session_only_what_it_left_is_its_own(file: Path) -> None:
    changed = file.stat().st_ctime_ns
    assert left(look_at([ask(file, ended_ns=changed)], time.time_ns())).sha256
    late = left(look(ask(file, ended_ns=changed - 2 * 10**9)))
    assert (late.sha256, late.why) == ("", "changed after the session")


@pytest.mark.parametrize(
    "kind", ["another file", "fifo", "link", "directory", "nothing", "link on the way"]
)
def test_only_the_very_file_is_read(file: Path, kind: str) -> None:
    object = object_at(file)
    file.rename(file.with_name("kept"))
    match kind:
        case "another file":
            file.write_text("the person's")
        case "fifo":
            os.mkfifo(file)
        case "link":
            file.symlink_to("kept")
        case "directory":
            file.mkdir()
        case "link on the way":
            (file.parent / "d").mkdir()
            file.with_name("kept").rename(file.parent / "d/f")
            (file.parent / "l").symlink_to("d")
            file = file.parent / "l/f"
    found = left(look(ask(file, object)))
    assert found.sha256 == ""
    assert found.why


def test_a_file_that_cannot_be_read_is_said_to_be(file: Path) -> None:
    file.chmod(0o200)
    if os.access(file, os.R_OK):
        pytest.skip("root reads everything")
    assert left(look(ask(file))).why == "permission denied"


def test_a_big_file_is_not_hashed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_CONTENT", 3)
    assert left(look(ask(file))).why == "too big to hash"


@pytest.mark.parametrize("nice", [0, 15])
def test_whoever_started_it_its_thread_gives_way(nice: int) -> None:
    script = f"import os; from remit_daemon.runtime import contents as c; os.nice({nice}); c._be_nice(); print(os.nice(0))"
    got = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(got.stdout) >= max(nice, contents.NICENESS)


def test_a_look_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_BYTES", 8)
    files = [tmp_path / name for name in "abc"]
    for path in files:
        path.write_text("12345678")
    seen = look(*map(ask, files))
    assert (len(seen.found), seen.bytes) == (1, 8)


def loose(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / ".git/objects/ab" / ("c" * 38)
    path.parent.mkdir(parents=True)
    path.write_bytes(raw)
    return path


COMMIT = b"tree 1\nauthor A <a@e> 1800000000 +0000\ncommitter P <p@e> %d +0000\n\n%s"


def stored(body: bytes, kind: bytes = b"commit") -> bytes:
    return zlib.compress(kind + b" %d\0" % len(body) + body)


@pytest.mark.parametrize(
    ("when", "message", "program", "said"),
    [
        (1800000000, b"one\n\nRemit-Session: s1\n", (), "made in this session, and its trailer says so"),
        (1800000000, b"one\n\nRemit-Session: s2\n", (), "made in this session, without its trailer"),
        (1800000000, b"Remit-Session: s1 \n\nbody\n", (), "made in this session, without its trailer"),
        (1600000000, b"one\n", (), "brought in by this session with a date before it began; no trailer of it"),
        (1600000000, b"one\n\nremit-session: s1", (), "made in this session, and its trailer says so"),
        (1800000000, b"one\n", ("git", "unpack-objects"), "brought in by this session in a pack, by a fetch or otherwise; no trailer of it"),
        (1800000000, b"one\n", ("git", "commit", "unpack-objects"), "made in this session, without its trailer"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_commit(
    tmp_path: Path, when: int, message: bytes, program: tuple[str, ...], said: str
) -> None:
    path = loose(tmp_path, stored(COMMIT % (when, message)))
    (found,) = look(ask(path, "x", program=program)).found
    assert isinstance(found, Commit)
    assert (found.repository, found.id, found.text) == (str(tmp_path), "ab" + "c" * 38, said)


def test_other_objects_are_passed_over(tmp_path: Path) -> None:
    seen = look(ask(loose(tmp_path, stored(b"x" * (1 << 21), b"blob")), "x"))
    assert (seen.found, len(seen.done)) == ([], 1)


@pytest.mark.parametrize(
    "raw", [b"", b"no zlib", zlib.compress(b"commit x\0"), zlib.compress(b"commit 3"), zlib.compress(b"")]
)
def test_what_is_no_object_is_said_to_be(tmp_path: Path, raw: bytes) -> None:
    (found,) = look(ask(loose(tmp_path, raw), "x")).found
    assert isinstance(found, Commit)
    assert "not to be read" in found.text


def test_an_object_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    path = loose(tmp_path, b"")
    path.unlink()
    (found,) = look(ask(path, "x")).found
    assert isinstance(found, Commit)
    assert "gone before it was read" in found.text
