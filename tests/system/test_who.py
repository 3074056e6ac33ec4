"""Who did it, with the real daemon: files that are replaced, moved, copied and changed, inside a session and after it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.harness import PYTHON, Arena

TEXT = "what the agent wrote, long enough to be told from others\n"
GIT = shutil.which("git")


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        a.plant()
        a.write_policy()
        a.start_daemon()
        yield a
    finally:
        a.close()


def run(arena: Arena, script: str, *args: str, ok: bool = True) -> str:
    argv = arena.remit_run("/bin/sh", "-e", "-c", script, "sh", *args, agent="claude")
    code, out, err = arena.communicate(argv)
    assert not ok or code == 0, err
    return str(out)


def who(arena: Arena, subject: str) -> dict[str, Any]:
    code, out, err = arena.communicate(arena.remit("who", subject, "--json"))
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def settled(arena: Arena, *subjects: str) -> None:
    """Wait until remit has looked at the content of these."""
    end = time.monotonic() + 10
    while any("a moment ago" in who(arena, s)["text"] for s in subjects):
        assert time.monotonic() < end, "not looked at"
        time.sleep(0.1)


def file(arena: Arena, name: str) -> str:
    return f"{arena.project}/{name}"


def agents(found: dict[str, Any], basis: str) -> bool:
    return (found["actor"], found["agent"], found["basis"]) == ("agent", "claude", basis)


def nobodys(found: dict[str, Any], basis: str) -> bool:
    return (found["actor"], found["basis"]) == ("", basis)


def test_a_file_keeps_its_author_whatever_its_name(arena: Arena) -> None:
    """Replaced atomically inside the session; then moved, linked, copied and changed by the person outside."""
    a, b, c, d = (file(arena, n) for n in ("who-a", "who-b", "who-c", "who-d"))
    run(arena, 'printf "%s" "$2" > "$1.tmp"; mv "$1.tmp" "$1"', a, TEXT)
    assert agents(who(arena, a), "object")  # at once, before its content was looked at
    settled(arena, a)
    found = who(arena, a)
    assert agents(found, "object")
    assert "with the content" in found["text"]
    assert [e["op"] for e in found["entries"]] == ["rename", "create"]

    os.rename(a, b)
    found = who(arena, b)
    assert agents(found, "object")
    assert "with the content" in found["text"]
    assert a in found["text"]
    assert agents(who(arena, a), "path")  # nothing is there: what was done under the name

    shutil.copy2(b, c)  # with the old times
    found = who(arena, c)
    assert agents(found, "content")
    assert "copied" in found["text"]

    Path(a).write_text("the person's own text in the old place\n")
    assert nobodys(who(arena, a), "path")

    with open(b, "a") as f:
        f.write("and the person's line\n")
    found = who(arena, b)
    assert nobodys(found, "object")
    assert "changed since" in found["text"]
    assert found["entries"]

    os.link(c, d)
    os.unlink(c)
    assert agents(who(arena, d), "content")


def test_what_is_written_through_remitd_is_the_agents_as_well(arena: Arena) -> None:
    """A descriptor that remitd hands over is no way to have a file changed by nobody."""
    path, moved = file(arena, "who-through"), file(arena, "who-through-moved")
    run(arena, 'printf "%s" "$2" > "$1"', path, TEXT)
    settled(arena, path)
    code = f"""
import os, sys
sys.path.insert(0, {arena.code!r})
from remit_client import Remit
os.write(Remit().open({path!r}, "write"), b"changed through remitd, long enough to be told from others\\n")
"""
    argv = arena.remit_run(PYTHON, "-c", code, agent="claude")
    done, _, err = arena.communicate(argv)
    assert done == 0, err
    os.rename(path, moved)
    settled(arena, moved)
    found = who(arena, moved)
    assert agents(found, "object"), found
    assert found["session"] == who(arena, path)["session"]


def test_the_persons_files_are_not_the_agents(arena: Arena) -> None:
    mine, copy = file(arena, "mine"), file(arena, "copied-by-the-agent")
    Path(mine).write_text("the person's own text, long enough to be told from others\n")
    run(arena, 'cat "$1" > "$2"', mine, copy)
    settled(arena, copy)
    assert agents(who(arena, copy), "object")
    found = who(arena, mine)
    assert (found["actor"], found["basis"]) == ("", "")


def test_a_number_that_comes_again_names_nobody(arena: Arena) -> None:
    """The agent's file is deleted, and a file of the person's is made until one gets its inode's number."""
    path = file(arena, "gone")
    run(arena, 'printf "%s" "$2" > "$1"', path, TEXT)
    settled(arena, path)
    inode = os.stat(path).st_ino
    os.unlink(path)
    held = []
    for n in range(2000):
        held.append(file(arena, f"again-{n}"))
        Path(held[-1]).write_text(f"the person's text number {n}, another one\n")
        if os.stat(held[-1]).st_ino == inode:
            break
    again = os.stat(held[-1]).st_ino == inode
    found = who(arena, held[-1])
    for name in held:
        os.unlink(name)
    if not again:
        pytest.skip("this file system did not give the number out again")
    assert (found["actor"], found["basis"]) == ("", "")


def test_a_swapped_path_does_not_hide_the_file_that_was_written(arena: Arena) -> None:
    """A process of the agent's rewrites the path's bytes while another opens, in a tree that Landlock alone could guard: the
    record names what was really opened."""
    script = """
import ctypes, mmap, os, signal
base = os.environ["TMPDIR"] + "/swap"
for d in "xy":
    os.makedirs(f"{base}/{d}")
    open(f"{base}/{d}/f", "w").close()
libc = ctypes.CDLL(None)
shared = mmap.mmap(-1, 4096)
shared.write(f"{base}/x/f".encode())
at = len(base) + 1
child = os.fork()
if not child:
    while True:
        shared[at] = 121; shared[at] = 120
path = ctypes.addressof(ctypes.c_char.from_buffer(shared))
inodes = {os.stat(f"{base}/{d}/f").st_ino: d for d in "xy"}
wrote = {"x": 0, "y": 0}
for n in range(2000):
    fd = libc.open(ctypes.c_void_p(path), os.O_WRONLY)
    wrote[inodes[os.fstat(fd).st_ino]] += 1
    os.close(fd)
os.kill(child, signal.SIGKILL)
print(base, wrote["x"], wrote["y"])
"""
    code, out, err = arena.communicate(arena.remit_run(PYTHON, "-c", script, agent="claude"), 60)
    assert code == 0, err
    base, x, y = out.split()
    words = ("log", "--path", base, "--op", "write", "--limit", "10000", "--json")
    code, out, err = arena.communicate(arena.remit(*words))
    assert code == 0, err
    log = json.loads(out)
    assert [sum(e["path"] == f"{base}/{d}/f" for e in log) for d in "xy"] == [int(x), int(y)]


@pytest.mark.skipif(GIT is None, reason="git is not installed")
class TestCommits:
    @pytest.fixture
    def repository(self, arena: Arena, request: pytest.FixtureRequest) -> str:
        path = file(arena, request.node.name.replace("[", "-").replace("]", ""))
        self.git(arena, ".", "init", "-q", "-b", "main", path)
        self.commit(arena, path, "the person's first")
        return path

    def git(self, arena: Arena, path: str, *words: str) -> str:
        identity = ["-c", "user.name=P", "-c", "user.email=p@example.org"]
        where = path if path != "." else arena.project
        code, out, err = arena.communicate(["git", "-C", where, *identity, *words])
        assert code == 0, err
        return str(out).strip()

    def commit(self, arena: Arena, path: str, message: str) -> str:
        Path(path, "f").write_text(message)
        self.git(arena, path, "add", "f")
        self.git(arena, path, "commit", "-q", "-m", message)
        return self.git(arena, path, "rev-parse", "HEAD")

    def inside(self, arena: Arena, path: str, script: str) -> None:
        setup = 'cd "$1"; export GIT_AUTHOR_NAME=P GIT_AUTHOR_EMAIL=p@example.org GIT_COMMITTER_NAME=P GIT_COMMITTER_EMAIL=p@example.org;'
        run(arena, setup + script, path)

    def of(self, arena: Arena, id: str) -> dict[str, Any]:
        end = time.monotonic() + 10
        while not (found := who(arena, id))["entries"] and time.monotonic() < end:
            time.sleep(0.1)
        return found

    @pytest.mark.parametrize(
        "script",
        [
            "echo 1 > g; git add g; git commit -q -m one",
            "git commit -q --amend -m other",
            "git -c core.hooksPath=/nonexistent commit -q --allow-empty --no-verify -m bare",
            "git update-ref refs/heads/main $(git commit-tree -p HEAD -m plumbing 'HEAD^{tree}')",
            "git commit -q --allow-empty -m packed; git repack -adq; git prune-packed -q",
        ],
        ids=["commit", "amend", "no hooks", "plumbing", "packed at once"],
    )
    def test_each_way_to_commit_is_known(self, arena: Arena, repository: str, script: str) -> None:
        before = self.git(arena, repository, "rev-parse", "HEAD")
        self.inside(arena, repository, script)
        made = self.git(arena, repository, "rev-parse", "HEAD")
        assert made != before
        found = self.of(arena, made)
        assert found["entries"]
        assert agents(found, "object") or "before it was read" in found["text"]
        assert who(arena, f"{repository}@main") == found
        assert not who(arena, before)["entries"]

    def test_each_commit_of_a_rebase_is_known(self, arena: Arena, repository: str) -> None:
        base = self.git(arena, repository, "rev-parse", "HEAD")
        self.git(arena, repository, "checkout", "-q", "-b", "topic")
        for n in (1, 2):
            Path(repository, f"t{n}").write_text("t")
            self.git(arena, repository, "add", f"t{n}")
            self.git(arena, repository, "commit", "-q", "-m", f"topic {n}")
        self.git(arena, repository, "checkout", "-q", "main")
        self.commit(arena, repository, "the person's second")
        self.inside(
            arena,
            repository,
            "git rebase -q main topic; git checkout -q main; git merge -q --no-ff -m merged topic",
        )
        made = self.git(arena, repository, "rev-list", f"{base}..main").split()
        known = [agents(self.of(arena, id), "object") for id in made]
        assert len(made) == 4
        assert known.count(True) == 3

    def test_what_is_fetched_is_not_called_the_agents(self, arena: Arena, repository: str) -> None:
        other = repository + "-other"
        self.git(arena, ".", "clone", "-q", repository, other)
        made = self.commit(arena, other, "somebody else's")
        self.inside(arena, repository, f"git fetch -q '{other}' main")
        found = self.of(arena, made)
        assert nobodys(found, "object")
        assert "brought in" in found["text"]

    def message(self, arena: Arena, path: str, rev: str = "HEAD") -> str:
        return self.git(arena, path, "log", "-1", "--format=%B", rev)

    def test_commits_name_the_agent_and_its_session_and_keep_the_author(
        self, arena: Arena, repository: str
    ) -> None:
        self.inside(arena, repository, "git commit -q --allow-empty -m 'one: two' -m 'Signed-off-by: P <p@example.org>'; git commit -q --amend --no-edit --allow-empty")  # fmt: skip
        found = self.of(arena, self.git(arena, repository, "rev-parse", "HEAD"))
        session = found["session"]
        assert self.message(arena, repository).split("\n")[2:] == [
            "Signed-off-by: P <p@example.org>", "Assisted-by: claude", f"Remit-Session: {session}",
        ]  # fmt: skip
        assert "its trailer says so" in found["text"]
        assert self.git(arena, repository, "log", "-1", "--format=%an %ae %cn") == "P p@example.org P"

    def test_the_hooks_of_the_repository_still_run(self, arena: Arena, repository: str) -> None:
        """In their usual place, and where its configuration has them; one that refuses a commit still does."""
        for place in (".git/hooks", "own-hooks"):
            if place == "own-hooks":
                self.git(arena, repository, "config", "core.hooksPath", place)
            os.makedirs(f"{repository}/{place}", exist_ok=True)
            for name in ("pre-commit", "commit-msg", "post-commit", "reference-transaction"):
                hook = Path(repository, place, name)
                hook.write_text(
                    f'#!/bin/sh\necho {place} {name} >> "$TMPDIR/ran"\n! grep -qs refuse "$1"\n'
                )
                hook.chmod(0o755)
                os.chown(hook, os.stat(repository).st_uid, -1)
            out = run(
                arena,
                'cd "$1"; export GIT_AUTHOR_NAME=P GIT_AUTHOR_EMAIL=p@e.org GIT_COMMITTER_NAME=P GIT_COMMITTER_EMAIL=p@e.org;'
                ' git commit -q --allow-empty -m yes; cat "$TMPDIR/ran"; ! git commit -q --allow-empty -m refuse',
                repository,
            )
            assert {f"{place} {n}" for n in ("pre-commit", "commit-msg", "post-commit", "reference-transaction")} == set(out.split("\n")[:-1])  # fmt: skip
            assert "Assisted-by: claude" in self.message(arena, repository)
            assert "yes" in self.message(arena, repository)

    def test_a_commit_without_its_trailer_is_told(self, arena: Arena, repository: str) -> None:
        self.inside(arena, repository, "GIT_CONFIG_COUNT=0 git commit -q --allow-empty -m bare")
        assert "Assisted-by" not in self.message(arena, repository)
        found = self.of(arena, self.git(arena, repository, "rev-parse", "HEAD"))
        assert agents(found, "object")
        assert "without its trailer" in found["text"]
        code, out, _ = arena.communicate(arena.remit("log", "--op", "commit"))
        assert code == 0
        assert "without its trailer" in out

    def test_policy_leaves_the_trailers_out(self, arena: Arena, repository: str) -> None:
        arena.write_policy(more='\n[agent.claude]\nroles = ["default"]\ntrailers = false\n')
        arena.communicate(arena.remit("reload"))
        try:
            self.inside(
                arena, repository, 'test -z "$GIT_CONFIG_COUNT"; git commit -q --allow-empty -m bare'
            )
        finally:
            arena.write_policy()
            arena.communicate(arena.remit("reload"))
        assert "Assisted-by" not in self.message(arena, repository)

    def test_the_persons_own_commits_stay_their_own(self, arena: Arena, repository: str) -> None:
        made = self.commit(arena, repository, "the person's")
        assert who(arena, made)["entries"] == []
        assert "Assisted-by" not in self.git(arena, repository, "log", "-1", "--format=%B")


def test_the_ledger_is_whole_with_all_of_it(arena: Arena) -> None:
    code, out, err = arena.communicate(arena.remit("log", "verify"))
    assert code == 0, out + err
