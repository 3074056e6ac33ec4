"""Rulesets on the running kernel, by an ordinary user, and `confine` under both."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kernel.harness import ORDINARY, as_user, call, supervised
from remit_daemon.kernel import landlock
from remit_daemon.kernel.landlock import Ruleset


@pytest.fixture
def zone() -> Iterator[str]:
    """A directory of the ordinary user with in/ and out/, each holding a file."""
    place = tempfile.mkdtemp(prefix="remit-landlock-")
    for name in ("/in", "/out", "/in/deep"):
        os.mkdir(place + name)
    for name in ("/in/file", "/out/file"):
        with open(place + name, "w") as file:
            file.write("words")
    if os.getuid() == 0:
        for base, _dirs, files in os.walk(place):
            for name in (base, *(f"{base}/{one}" for one in files)):
                os.chown(name, ORDINARY, ORDINARY)
    yield place
    shutil.rmtree(place)


def number(action: Callable[[], Any]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or 0
    return 0


def confined(body: Callable[[], Any], build: Callable[[], Ruleset]) -> Any:
    def run() -> Any:
        call("prctl", 38, 1, 0, 0, 0)
        rules = build()
        rules.restrict_self()
        rules.close()
        return body()

    return as_user(run)


def test_what_no_rule_allows_is_refused(zone: str) -> None:
    def build() -> Ruleset:
        rules = Ruleset()
        rules.allow(zone + "/in", landlock.READ | landlock.WRITE)
        return rules

    def body() -> dict[str, int]:
        return {
            "read in": number(lambda: open(zone + "/in/file").close()),
            "write in": number(lambda: open(zone + "/in/new", "w").close()),
            "list in": number(lambda: os.listdir(zone + "/in")),
            "move in": number(lambda: os.rename(zone + "/in/file", zone + "/in/deep/file")),
            "fifo in": number(lambda: os.mkfifo(zone + "/in/fifo")),
            "read out": number(lambda: open(zone + "/out/file").close()),
            "list out": number(lambda: os.listdir(zone + "/out")),
            "empty out": number(lambda: os.truncate(zone + "/out/file", 0)),
            "make out": number(lambda: os.mkdir(zone + "/out/new")),
            "remove out": number(lambda: os.unlink(zone + "/out/file")),
            "move out": number(lambda: os.rename(zone + "/in/new", zone + "/out/new")),
            "link out in": number(lambda: os.link(zone + "/out/file", zone + "/in/link")),
            "exec in": number(lambda: os.execv(zone + "/in/deep/file", ["x"])),
        }

    seen = confined(body, build)
    assert {
        name: code
        for name, code in seen.items()
        if name.endswith(" in") and name not in ("exec in", "link out in")
    } == {
        "read in": 0,
        "write in": 0,
        "list in": 0,
        "move in": 0,
        "fifo in": 0,
    }
    for name in ("read out", "list out", "empty out", "make out", "remove out", "move out"):
        assert seen[name] in (errno.EACCES, errno.EXDEV), name
    assert seen["link out in"] in (errno.EACCES, errno.EXDEV)
    assert seen["exec in"] == errno.EACCES


def test_reading_alone_does_not_change(zone: str) -> None:
    def build() -> Ruleset:
        rules = Ruleset()
        rules.allow(zone, landlock.READ)
        return rules

    def body() -> list[int]:
        return [
            number(lambda: open(zone + "/in/file").close()),
            number(lambda: open(zone + "/in/file", "a").close()),
            number(lambda: os.unlink(zone + "/in/file")),
            number(lambda: os.symlink("x", zone + "/in/link")),
        ]

    assert confined(body, build) == [0, errno.EACCES, errno.EACCES, errno.EACCES]


def test_rights_on_a_file_are_reduced_to_those_it_can_have(zone: str) -> None:
    def body() -> list[int]:
        rules = Ruleset()
        fd = os.open(zone + "/in/file", os.O_PATH)
        return [
            rules.allow(zone + "/in/file", landlock.READ | landlock.WRITE),
            rules.allow(fd, landlock.READ),
            rules.allow(fd, landlock.READ_DIR),
            rules.allow(zone, landlock.READ),
        ]

    expected = landlock.READ_FILE | landlock.WRITE_FILE | landlock.TRUNCATE
    assert as_user(body) == [expected, landlock.READ_FILE, 0, landlock.READ]


def test_an_absent_path_is_the_callers_to_hear(zone: str) -> None:
    with pytest.raises(FileNotFoundError):
        Ruleset().allow(zone + "/nothing", landlock.READ)


def test_devices_need_their_right() -> None:
    def build(rights: int) -> Callable[[], Ruleset]:
        def made() -> Ruleset:
            rules = Ruleset()
            rules.allow("/dev/null", rights)
            return rules

        return made

    def body() -> int:
        return call("ioctl", os.open("/dev/null", os.O_RDONLY), 0x5401, bytes(64))

    assert confined(body, build(landlock.READ)) == -errno.EACCES
    assert confined(body, build(landlock.READ | landlock.IOCTL_DEV)) == -errno.ENOTTY


def test_ports() -> None:
    import socket

    def build() -> Ruleset:
        rules = Ruleset(0, landlock.ALL_NET, 0)
        rules.allow_port(9, landlock.CONNECT_TCP)
        return rules

    def to(port: int) -> int:
        return number(lambda: socket.create_connection(("127.0.0.1", port), 1))

    def body() -> list[int]:
        with socket.socket() as own:
            return [to(9), to(10), number(lambda: own.bind(("127.0.0.1", 0)))]

    assert confined(body, build) == [errno.ECONNREFUSED, errno.EACCES, errno.EACCES]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (1, ["5.19", "6.2", "6.7", "6.10", "6.12"]),
        (3, ["6.7", "6.10", "6.12"]),
        (4, ["6.10", "6.12"]),
        (5, ["6.12"]),
        (6, []),
        (7, []),
    ],
)
def test_what_an_older_kernel_lacks_is_named(version: int, words: list[str]) -> None:
    lacking = landlock.lacking(version, landlock.ALL_FS, landlock.ALL_NET, landlock.ALL_SCOPED)
    assert [one.rsplit("Linux ", 1)[1].rstrip(")") for one in lacking] == words
    assert landlock.lacking(version, *landlock.supported(version)) == []


def test_an_older_kernel_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 4)
    with pytest.raises(landlock.LandlockError, match=r"device ioctls \(Linux 6\.10\)"):
        Ruleset()
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    with pytest.raises(landlock.LandlockError, match="not available"):
        Ruleset()


def test_device_nodes_are_handled_and_never_granted() -> None:
    assert landlock.ALL_FS == (1 << 16) - 1
    assert not (landlock.WRITE | landlock.READ) & (landlock.MAKE_CHAR | landlock.MAKE_BLOCK)


def test_confine_puts_both_in_force(zone: str) -> None:
    def build() -> Ruleset:
        rules = Ruleset()
        rules.allow(zone + "/in", landlock.READ)
        return rules

    def child() -> list[int]:
        return [
            number(lambda: open(zone + "/in/file").close()),
            number(lambda: open(zone + "/out/file").close()),
            number(lambda: os.kill(os.getppid(), 0)),
            call("io_uring_setup", 1, None),
        ]

    outcome = supervised(child, rules=build, refuse=lambda _n, _a: False)
    assert outcome.value == [0, errno.EACCES, errno.EPERM, -errno.ENOSYS]
    assert outcome.names == ["openat", "openat"]


def test_the_seventeenth_domain_is_explained() -> None:
    def body() -> str:
        call("prctl", 38, 1, 0, 0, 0)
        rules = Ruleset(landlock.MAKE_CHAR, 0, 0)
        for count in range(17):
            try:
                rules.restrict_self()
            except landlock.LandlockError as error:
                return f"{count} {error}"
        return ""

    assert as_user(body) == "16 cannot confine the process: 16 Landlock domains are nested already"


def test_listening_without_bind_passes_landlock_and_can_be_notified() -> None:
    """No Landlock right covers it (Linux 6.18); `also={"listen"}` brings it to the supervisor.

    When this fails because a newer kernel refuses, remit's list of what is not protected has to change.
    """
    import socket

    def child() -> int:
        with socket.socket() as own:
            return number(lambda: own.listen(1)) or own.getsockname()[1]

    free = supervised(child, rules=Ruleset, refuse=lambda name, _a: name == "listen")
    assert free.value > 1023
    asked = supervised(
        child, rules=Ruleset, refuse=lambda name, _a: name == "listen", also=frozenset({"listen"})
    )
    assert asked.value == errno.ENOTRECOVERABLE
    assert "listen" in asked.names
