"""Pinning: our own process stands in for the target."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit_daemon.kernel import calls
from remit_daemon.peers import mark
from remit_daemon.supervisor.resolve import Resolver, real_path
from remit_daemon.supervisor.target import Targets

HERE = calls.AT_FDCWD


class Inside(Targets):
    """Targets for which the test's own process is of the session, and no other."""

    def inside(self, pid: int) -> bool:
        return pid == os.getpid()


@pytest.fixture
def resolver() -> Resolver:
    return Resolver(Inside(mark.new_tag()))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    (tmp_path / "link").symlink_to("d")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pinned(resolver: Resolver, path: str | bytes, dirfd: int = HERE, nofollow: bool = False) -> str:
    pin = resolver.pin(os.getpid(), dirfd, os.fsencode(path), nofollow)
    try:
        return pin.path
    finally:
        pin.close()


@pytest.mark.parametrize("spelling", ["link/f", "./d//f", "d/../link/f", "/proc/self/cwd/link/f"])
def test_every_spelling_is_one_path(resolver: Resolver, tree: Path, spelling: str) -> None:
    assert pinned(resolver, spelling) == str(tree / "d" / "f")


def test_a_descriptor_of_the_target_s_is_its_own(resolver: Resolver, tree: Path) -> None:
    fd = os.open("d", os.O_RDONLY)
    try:
        assert pinned(resolver, "f", fd) == str(tree / "d" / "f")
        assert pinned(resolver, f"/proc/self/fd/{fd}/f") == str(tree / "d" / "f")
        assert pinned(resolver, f"/dev/fd/{fd}/f") == str(tree / "d" / "f")
    finally:
        os.close(fd)


def test_what_is_not_there_for_us_may_be_for_the_target(resolver: Resolver, tree: Path) -> None:
    for path in ("/dev/fd/999", "/proc/self/fd/999", "link/none", "d/f/"):
        with pytest.raises(OSError) as e:
            pinned(resolver, path)
        assert e.value.errno in (errno.ENOENT, errno.ENOTDIR)


def test_other_processes_doors_are_closed(resolver: Resolver) -> None:
    for path in (f"/proc/{os.getppid()}/root/etc", f"/proc/{os.getppid()}/cwd"):
        with pytest.raises(PermissionError):
            pinned(resolver, path)


def test_a_link_to_procfs_s_self_is_not_ours_to_follow(resolver: Resolver, tree: Path) -> None:
    (tree / "sneaky").symlink_to("/proc/self/fd/0")
    assert pinned(resolver, "sneaky") == os.readlink("/proc/self/fd/0")


@pytest.mark.parametrize(
    ("path", "code"),
    [("none", errno.ENOENT), ("d/f/x", errno.ENOTDIR), ("", errno.ENOENT), ("loop", errno.ELOOP), ("a" * 300, errno.ENAMETOOLONG)],
)  # fmt: skip
def test_errors_are_the_kernel_s(resolver: Resolver, tree: Path, path: str, code: int) -> None:
    (tree / "loop").symlink_to("loop")
    with pytest.raises(OSError) as e:
        pinned(resolver, path)
    assert e.value.errno == code


def test_a_deleted_file_has_its_last_path(tree: Path) -> None:
    with open("gone", "w") as f, open("odd (deleted)", "w") as odd:
        os.unlink("gone")
        assert real_path(f.fileno()) == str(tree / "gone")
        assert real_path(odd.fileno()) == str(tree / "odd (deleted)")


def test_a_place_is_named_whether_or_not_it_exists(resolver: Resolver, tree: Path) -> None:
    place = resolver.place(os.getpid(), HERE, b"link/new")
    assert place.path == str(tree / "d" / "new")
    assert place.stat() is None
    place.close()
    for path in (b"d/.", b"..", b"/"):
        with pytest.raises(FileExistsError):
            resolver.place(os.getpid(), HERE, path)


def test_paths_are_read_over_page_ends() -> None:
    import mmap

    area = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for at in (0, mmap.PAGESIZE - 3, mmap.PAGESIZE - 1):
        area[:] = b"\xff" * len(area)
        area[at : at + 6] = b"hello\0"
        assert calls.read_path(os.getpid(), start + at) == b"hello"
    area[:] = b"x" * len(area)
    with pytest.raises(OSError, match="without an end"):
        calls.read_path(os.getpid(), start)
    with pytest.raises(OSError) as e:
        calls.read_path(os.getpid(), 8)
    assert e.value.errno == errno.EFAULT


def test_two_threads_read_paths_each_with_a_reader_of_its_own() -> None:
    wrong: list[bytes] = []

    def read(text: bytes) -> None:
        buffer = ctypes.create_string_buffer(text)
        reader, at = calls.path_reader(), ctypes.addressof(buffer)
        for _ in range(20_000):
            found = reader(os.getpid(), at)
            if found != text:
                wrong.append(found)

    threads = [threading.Thread(target=read, args=(c * 200,)) for c in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, f"{len(wrong)} reads, such as {wrong[0]!r}"
