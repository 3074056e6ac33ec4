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
    """The agent exchanges the directory of its path between two, while it opens: what it wrote is still known as its own."""
    base = file(arena, "swap")
    for d in "xy":
        os.makedirs(f"{base}/{d}")
        Path(f"{base}/{d}/f").write_text("before\n")
    script = """
import os, sys, threading
base = sys.argv[1]
os.symlink("x", base + "/l")
stop = False
def swap():
    n = 0
    while not stop:
        os.symlink("xy"[n & 1], base + "/m"); os.rename(base + "/m", base + "/l"); n += 1
t = threading.Thread(target=swap); t.start()
inodes = {os.stat(f"{base}/{d}/f").st_ino: d for d in "xy"}
wrote = {}
for n in range(300):
    with open(base + "/l/f", "w") as f:
        wrote[inodes[os.fstat(f.fileno()).st_ino]] = wrote.get(inodes[os.fstat(f.fileno()).st_ino], 0) + 1
        f.write("the agent's\\n")
stop = True; t.join()
print(wrote.get("x", 0), wrote.get("y", 0))
"""
    argv = arena.remit_run(PYTHON, "-c", script, base, agent="claude")
    code, out, err = arena.communicate(argv, 60)
    assert code == 0, err
    x, y = map(int, out.split())
    log = json.loads(arena.communicate(arena.remit("log", "--path", base, "--op", "write", "--json"))[1])
    seen = [sum(e["path"] == f"{base}/{d}/f" for e in log) for d in "xy"]
    assert seen == [x, y]


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

    def test_the_persons_own_commits_stay_their_own(self, arena: Arena, repository: str) -> None:
        made = self.commit(arena, repository, "the person's")
        assert who(arena, made)["entries"] == []
        assert "Assisted-by" not in self.git(arena, repository, "log", "-1", "--format=%B")


def test_the_ledger_is_whole_with_all_of_it(arena: Arena) -> None:
    code, out, err = arena.communicate(arena.remit("log", "verify"))
    assert code == 0, out + err
