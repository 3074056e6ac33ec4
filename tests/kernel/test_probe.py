"""The probe on the running kernel, its cache, and what `remit doctor` says."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from kernel.harness import as_user, call, supervised
from remit_daemon.cli import doctor_cmd
from remit_daemon.kernel import landlock, probe, syscalls, trials
from remit_daemon.kernel.probe import Check
from remit_daemon.supervisor import machine


def states() -> dict[str, str]:
    return {one.name: one.state for one in probe.check()}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_everything_is_enforced_for_an_ordinary_user() -> None:
    details = as_user(lambda: [(one.name, one.state, one.detail) for one in probe.check()])
    assert len(details) == len(probe._TABLE)
    assert [one for one in details if one[1] != "full"] == []


def test_the_probe_leaves_nothing_behind() -> None:
    def body() -> list[Any]:
        before = descriptors()
        with tempfile.TemporaryDirectory() as place:
            probe.check(place)
            left = os.listdir(place)
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return [left, descriptors() - before]
        return ["a child is left"]

    assert as_user(body) == [[], 0]


def test_a_supervised_process_is_told_that_it_is() -> None:
    def child() -> list[str]:
        found = trials.notification(True)
        return [found["listener"], call_state("pidfd_getfd")]

    def call_state(name: str) -> str:
        return os.strerror(-call(name, -1, 0, 0))

    seen = supervised(child, refuse=lambda _n, _a: False).value
    assert "already supervised" in seen[0]
    assert seen[1] == "Operation not permitted"


def test_without_wait_killable_the_storm_is_not_claimed() -> None:
    found = as_user(lambda: trials.notification(False))
    assert "storm" not in found
    assert found["answer"] == found["inject"] == found["hangup"] == ""


def test_the_storm_sees_a_kernel_that_lets_signals_through() -> None:
    """The same exchange with a filter that does not wait killably must be found out, or the test is no test."""

    def body() -> str:
        real = trials._target

        def without(wait_killable: bool) -> Any:
            inner = real(wait_killable)

            def run(read: int, write: int) -> None:
                module = vars(trials)
                plain = module["confine"]
                module["confine"] = lambda rules, blob, **_: plain(rules, blob, wait_killable=False)
                inner(read, write)

            return run

        trials._target = without
        return trials.notification(True)["storm"]

    assert "signal" in as_user(body)


def made(state: str = "full", required: bool = True) -> Check:
    return Check("one thing", state, "a detail\x1b[2J", required, "6.12", "a trial")  # type: ignore[arg-type]


def test_what_is_required_and_missing_is_named_with_its_kernel() -> None:
    probe.refuse([made(), made("none", required=False)])
    with pytest.raises(probe.Unsupported, match=r"one thing does not work here .*Linux 6\.12"):
        probe.refuse([made("none")])


def test_a_kernel_without_landlock_or_with_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    found = {one.name: one for one in probe.check()}
    assert found["Landlock: files"].state == "none"
    assert found["Landlock: TCP"].state == "partial"
    monkeypatch.setattr(landlock, "abi", lambda: 4)
    found = {one.name: one for one in probe.check()}
    assert found["Landlock: files"].state == found["Landlock: TCP"].state == "full"
    assert found["Landlock: signals"].state == "none"
    assert "ABI 4" in found["Landlock: signals"].detail


class TestCache:
    def test_it_is_used_and_fast(self) -> None:
        def body() -> list[Any]:
            with tempfile.TemporaryDirectory() as place:
                cache = place + "/kernel"
                first = [(one.name, one.state) for one in probe.require(cache)]
                best = min(self._timed(cache, first) for _ in range(20))
                return [os.stat(cache).st_mode & 0o777, best]

        mode, best = as_user(body)
        assert mode == 0o600
        assert best < 1e-3

    @staticmethod
    def _timed(cache: str, first: list[Any]) -> float:
        start = time.perf_counter()
        again = probe.require(cache)
        took = time.perf_counter() - start
        assert [(one.name, one.state) for one in again] == first
        return took

    @pytest.mark.parametrize("spoil", ["boot", "mode", "short", "binary", "link", "unknown", "required"])
    def test_a_doubtful_one_is_not_believed(self, spoil: str) -> None:
        def body() -> bool:
            with tempfile.TemporaryDirectory() as place:
                cache = place + "/kernel"
                probe.require(cache)
                key = probe._key()
                assert probe._load(cache, key) is not None
                with open(cache) as file:
                    text = file.read()
                if spoil == "boot":
                    text = text.replace(" ", " x", 1)
                elif spoil == "short":
                    text = text[: len(text) // 2]
                elif spoil == "unknown":
                    text = text.replace("listener\t", "lizard\t")
                elif spoil == "required":
                    text = text.replace("storm\t", "storm\tlost")
                with open(cache, "wb") as out:
                    out.write(os.urandom(200) if spoil == "binary" else text.encode())
                if spoil == "mode":
                    os.chmod(cache, 0o622)
                if spoil == "link":
                    os.rename(cache, place + "/other")
                    os.symlink(place + "/other", cache)
                return probe._load(cache, key) is None

        assert as_user(body) is True

    def test_one_that_cannot_be_kept_is_done_without(self) -> None:
        assert as_user(lambda: len(probe.require("/proc/no/such/place"))) == len(probe._TABLE)


def test_doctor_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor_cmd.run([], json_out=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is True
    assert {one["name"] for one in said["checks"]} == {row[1] for row in probe._TABLE}
    assert any("stat" in line for line in said["not_protected"])


def test_doctor_says_what_sessions_find_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    assert f"no session bus at unix:path={tmp_path}/bus: sessions have none" in doctor_cmd.surroundings()
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(f"{tmp_path}/bus")
        bus.listen()
        assert "the session bus answers; sessions reach it through a filter" in doctor_cmd.surroundings()
    (tmp_path / "resolv.conf").write_text("search x.org\n")
    monkeypatch.setattr(machine, "_RESOLV", str(tmp_path / "resolv.conf"))
    assert "no nameserver" in doctor_cmd.surroundings()[0]
    (tmp_path / "resolv.conf").write_text("nameserver 10.1.2.3\n")
    assert doctor_cmd.surroundings()[0] == "names are looked up at 10.1.2.3"


def test_doctor_for_a_person(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor_cmd.run([], json_out=False) == 0
    text = capsys.readouterr().out
    assert "tried: the child signals its parent" in text
    assert "not protected, on any kernel:" in text
    assert "beside the kernel:" in text
    monkeypatch.setattr(doctor_cmd, "check", lambda: [made(), made("none")])
    assert doctor_cmd.run([], json_out=False) == 1
    text = capsys.readouterr().out
    assert "missing: one thing" in text
    assert "it came with Linux 6.12" in text
    assert "\x1b" not in text


def test_doctor_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor_cmd.run(["--fix"], json_out=False) == 2
    assert "--fix" in capsys.readouterr().err
    assert doctor_cmd.run(["--help"], json_out=False) == 0


def test_the_running_machine_is_native() -> None:
    assert call("getpid") == os.getpid()
    assert syscalls.NAMES[syscalls.NATIVE["getpid"]] == "getpid"
