"""What real processes run, and how each case that cannot be told is named."""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.clock import Clock
from remit_daemon.peers import attest, mark
from remit_daemon.peers.attest import Attestation, Attestor, Outcome, assurance
from remit_daemon.peers.digest import sha256_of
from remit_daemon.peers.scripts import Kind

PYTHON = os.path.realpath(sys.executable)
SLEEP = os.path.realpath(shutil.which("sleep") or "/bin/sleep")


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Running:
    """Programs that run until the test is over."""

    def __init__(self) -> None:
        self.attestor = Attestor()
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *argv: str, **options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, **options
        )  # type: ignore[call-overload]
        self.processes.append(process)
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes() and process.poll() is None:
            pass  # an exec names its program before its arguments
        return process

    def look(self, process: subprocess.Popen[str], attestor: Attestor | None = None) -> Attestation:
        pidfd = os.pidfd_open(process.pid)
        try:
            return (attestor or self.attestor).of_process(process.pid, pidfd, "test")
        finally:
            os.close(pidfd)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def running() -> Iterator[Running]:
    found = Running()
    yield found
    found.close()


def copied(tmp_path: Path, name: str = "tool") -> str:
    path = str(tmp_path / name)
    shutil.copy(SLEEP, path)
    return path


def said(process: subprocess.Popen[str], word: str = "ready") -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word


def test_a_native_program(running: Running, tmp_path: Path) -> None:
    path = copied(tmp_path)
    found = running.look(running.start(path, "60"))
    assert found == Attestation(Outcome.FILE, path, digest(path))
    assert found.attested == (digest(path), "")


def test_a_deleted_program_is_hashed_and_named_so(running: Running, tmp_path: Path) -> None:
    path = copied(tmp_path)
    want = digest(path)
    process = running.start(path, "60")
    os.unlink(path)
    assert running.look(process) == Attestation(Outcome.DELETED, path, want)


def test_a_program_whose_name_leads_to_another_file_now(running: Running, tmp_path: Path) -> None:
    path = copied(tmp_path)
    want = digest(path)
    process = running.start(path, "60")
    Path(path + ".new").write_text("not what runs")
    os.rename(path + ".new", path)
    assert running.look(process) == Attestation(Outcome.DELETED, path, want)


_MEMFD = """
import os, sys
fd = os.memfd_create("claude")
os.write(fd, open(sys.argv[1], "rb").read())
os.execv(f"/proc/self/fd/{fd}", ["claude", "60"])
"""


def test_a_program_in_memory(running: Running) -> None:
    process = running.start(sys.executable, "-c", _MEMFD, SLEEP)
    while not os.readlink(f"/proc/{process.pid}/exe").startswith("/memfd:"):
        assert process.poll() is None
    while (found := running.look(process)).outcome is Outcome.CHANGED:
        assert process.poll() is None  # its command line changes a moment after its program
    assert (found.outcome, found.path, found.digest) == (Outcome.MEMFD, "/memfd:claude", digest(SLEEP))


def test_a_program_that_may_no_longer_be_read(running: Running, tmp_path: Path) -> None:
    path = copied(tmp_path)
    process = running.start(path, "60")
    os.chmod(path, 0)
    if os.getuid() == 0:
        pytest.fail("run the tests as an ordinary user: root reads everything")
    assert running.look(process) == Attestation(Outcome.UNREADABLE)


def test_a_program_that_may_be_run_but_not_read_is_closed_to_us(running: Running, tmp_path: Path) -> None:
    path = copied(tmp_path)
    os.chmod(path, stat.S_IXUSR)
    assert running.look(running.start(path, "60")) == Attestation(Outcome.UNDUMPABLE)


def test_a_process_that_is_not_dumpable(running: Running) -> None:
    code = "import ctypes, time; ctypes.CDLL(None).prctl(4, 0); print('ready', flush=True); time.sleep(60)"
    process = running.start(sys.executable, "-c", code)
    said(process)
    found = running.look(process)
    assert found == Attestation(Outcome.UNDUMPABLE)
    assert found.attested == ("", "")


def test_a_process_in_another_namespace(running: Running) -> None:
    if subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives ordinary users no namespaces")
    process = running.start("unshare", "--user", "--mount", "sh", "-c", "echo ready; exec sleep 60")
    said(process)
    while os.path.basename(os.readlink(f"/proc/{process.pid}/exe")) != os.path.basename(SLEEP):
        assert process.poll() is None
    while (found := running.look(process)).outcome is Outcome.CHANGED:
        assert process.poll() is None  # its command line changes a moment after its program
    assert (found.outcome, found.digest) == (Outcome.NAMESPACE, digest(SLEEP))


def test_a_process_that_has_ended(running: Running) -> None:
    process = running.start(SLEEP, "60")
    pidfd = os.pidfd_open(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert running.attestor.of_process(process.pid, pidfd, "t") == Attestation(Outcome.GONE)
    process.wait()
    assert running.attestor.of_process(process.pid, pidfd, "t") == Attestation(Outcome.GONE)
    os.close(pidfd)


def test_an_interpreter_with_its_script(running: Running, tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text("print('ready', flush=True)\ninput()\n")
    process = running.start(sys.executable, "-I", "agent.py", cwd=tmp_path)
    said(process)
    found = running.look(process)
    assert found == Attestation(
        Outcome.FILE, PYTHON, digest(PYTHON), Kind.FILE, os.path.realpath(script), digest(script)
    )
    assert found.attested == (digest(PYTHON), digest(script))


@pytest.mark.parametrize(
    ("options", "kind", "what"),
    [
        (["-c", "print('ready', flush=True); input()"], Kind.CODE, ""),
        (["-m", "agent"], Kind.MODULE, "agent"),
    ],
)
def test_an_interpreter_without_a_file_attests_nothing(
    running: Running, tmp_path: Path, options: list[str], kind: Kind, what: str
) -> None:
    (tmp_path / "agent.py").write_text("print('ready', flush=True)\ninput()\n")
    process = running.start(sys.executable, *options, cwd=tmp_path)
    said(process)
    found = running.look(process)
    assert (found.outcome, found.kind, found.script, found.script_digest) == (Outcome.FILE, kind, what, "")
    assert found.attested == ("", "")
    assert "not attested" in found.words()


def test_a_script_that_is_no_file_is_not_even_opened(running: Running, tmp_path: Path) -> None:
    """The process says which; the reading end of a pipe that we opened would let a writer go on that waits for one."""
    os.mkfifo(tmp_path / "pipe")
    code = "import sys; print('ready', flush=True); open(sys.argv[1], 'w'); print('let go', flush=True)"
    writer = running.start(sys.executable, "-c", code, str(tmp_path / "pipe"))
    said(writer)
    while mark.stat_of(writer.pid)[0] != "S":
        pass  # it waits for a reader
    found = Attestor()._script(f"/proc/{os.getpid()}", str(tmp_path / "pipe"), "t")
    assert found == (str(tmp_path / "pipe"), "")
    with pytest.raises(OSError, match="not a regular file"):
        Attestor().of_file(str(tmp_path / "pipe"), "t")
    assert not select.select([writer.stdout], [], [], 0.3)[0]


def test_a_script_that_changes_while_it_is_hashed(running: Running, tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text("print('ready', flush=True)\ninput()\n")
    process = running.start(sys.executable, str(script))
    said(process)

    def meanwhile(fd: int) -> str:
        if os.fstat(fd).st_ino == os.stat(script).st_ino:
            script.write_text("something else")
        return sha256_of(fd)

    found = running.look(process, Attestor(hash_fd=meanwhile))
    assert (found.outcome, found.script_digest, found.attested) == (Outcome.FILE, "", ("", ""))


def test_a_process_that_executes_another_program_meanwhile(running: Running) -> None:
    """The pidfd is the same before and after: only looking again tells."""
    code = "import os, sys; print('ready', flush=True); input(); os.execv(sys.argv[1], ['sleep', '60'])"
    process = running.start(sys.executable, "-c", code, SLEEP)
    said(process)
    first = running.look(process)

    def meanwhile(fd: int) -> str:
        assert process.stdin is not None
        process.stdin.write("\n")
        while os.readlink(f"/proc/{process.pid}/exe") != SLEEP:
            pass
        return sha256_of(fd)

    assert running.look(process, Attestor(hash_fd=meanwhile)) == Attestation(Outcome.CHANGED)
    now = running.look(process)
    assert (first.digest, now.digest) == (digest(PYTHON), digest(SLEEP)), (
        "asked again, it is what it is now"
    )


def test_a_digest_is_kept_until_the_file_changes(tmp_path: Path) -> None:
    hashed: list[int] = []

    def counted(fd: int) -> str:
        hashed.append(fd)
        return sha256_of(fd)

    path = tmp_path / "x"
    path.write_text("one")
    late = os.stat(path).st_mtime + attest.SETTLED + 1
    found = Attestor(wall=lambda: late, hash_fd=counted)
    assert [found.of_file(str(path), "t") for _ in range(3)] == [digest(path)] * 3
    assert len(hashed) == 1
    keep = os.stat(path)
    path.write_text("two")
    os.utime(path, ns=(keep.st_atime_ns, keep.st_mtime_ns))  # ctime tells
    assert found.of_file(str(path), "t") == digest(path)
    assert len(hashed) == 2


def test_a_file_that_has_just_changed_is_hashed_each_time(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("one")
    hashed: list[int] = []
    found = Attestor(hash_fd=lambda fd: str(hashed.append(fd)))
    for _ in range(3):
        found.of_file(str(path), "t")
    assert len(hashed) == 3


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with open(path, "wb") as f:
        f.truncate(attest.LARGEST + 1)
    with pytest.raises(OSError, match="too large"):
        Attestor().of_file(str(path), "t")


def test_hashing_is_bounded_for_each(tmp_path: Path) -> None:
    clock = Clock(0.0)
    found = Attestor(clock=clock)
    path = tmp_path / "x"
    path.write_text("one")
    for _ in range(attest.MAX_FRESH):
        found.of_file(str(path), "one")
    with pytest.raises(OSError, match="too many"):
        found.of_file(str(path), "one")
    assert found.of_file(str(path), "another") == digest(path)
    clock.now += attest.PERIOD
    assert found.of_file(str(path), "one") == digest(path)


@pytest.mark.parametrize(
    ("found", "launched", "known", "level"),
    [
        (Attestation(Outcome.GONE), True, False, "L3"),
        (Attestation(Outcome.FILE, "/x", "d"), False, True, "L2"),
        (Attestation(Outcome.FILE, "/x", "d"), False, False, "L0"),
        (Attestation(Outcome.FILE, "/x", "d", Kind.FILE, "/s", "e"), False, True, "L1"),
        (Attestation(Outcome.FILE, "/x", "d", Kind.CODE), False, True, "L0"),
        (Attestation(Outcome.UNDUMPABLE), False, True, "L0"),
    ],
)
def test_levels(found: Attestation, launched: bool, known: bool, level: str) -> None:
    assert assurance(found, launched=launched, known=known) == level
