"""The session mark and the killing of a tree by it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest

from remit_daemon.peers import mark, process

_HOP = "import os,time\nos.setsid()\nif os.fork(): os._exit(0)\ntime.sleep(60)"


def _spawn(tag: int, code: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    hard = resource.RLIM_INFINITY
    return subprocess.Popen(
        [sys.executable, "-c", code],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_RTTIME, (tag, hard)),
    )


def test_tags_are_marks_and_differ() -> None:
    tags = {mark.new_tag() for _ in range(100)}
    assert len(tags) == 100
    assert all(mark.is_tag(t) for t in tags)
    assert not mark.is_tag(1_000_000)
    assert mark.tag_of(os.getpid()) == 0


def test_a_tree_is_found_and_killed_even_when_it_left_its_parent() -> None:
    tag = mark.new_tag()
    child = _spawn(tag, _HOP)
    child.wait(10)
    for _ in range(200):
        if mark.marked(tag):
            break
        time.sleep(0.01)
    assert len(mark.marked(tag)) == 1
    assert mark.kill_tree(tag)
    assert mark.marked(tag) == []


def test_another_session_lives_on() -> None:
    one, two = _spawn(mark.new_tag()), _spawn(tag := mark.new_tag())
    try:
        assert mark.kill_tree(tag)
        assert two.wait(5) == -signal.SIGKILL
        assert one.poll() is None
    finally:
        one.kill()
        one.wait()


def test_a_sub_sessions_part_has_a_mark_of_its_own_below_the_sessions() -> None:
    tag, sub = mark.new_tag(), mark.new_sub_mark()
    assert mark.is_tag(sub)
    assert sub < mark.MIDDLE <= tag
    code = (
        f"import resource, time; resource.setrlimit(resource.RLIMIT_RTTIME, ({sub}, {tag})); time.sleep(60)"
    )
    whole, part = _spawn(tag), _spawn(tag, code)
    try:
        for _ in range(500):
            if mark.marks_of(part.pid) == (tag, sub):
                break
            time.sleep(0.01)
        assert mark.marks_of(part.pid) == (tag, sub)
        assert mark.tag_of(part.pid) == tag
        assert set(mark.marked(tag)) == {part.pid} | (
            {whole.pid} if mark.tag_of(whole.pid) == tag else set()
        )
        assert mark.kill_tree(sub)
        assert part.wait(5) == -signal.SIGKILL
        assert whole.poll() is None
    finally:
        for one in (whole, part):
            one.kill()
            one.wait()


def test_a_value_that_is_no_mark_kills_nothing() -> None:
    assert mark.kill_tree(0)


def test_peer_is_told_from_the_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = process.peer_of(ours)
        assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
        assert peer.alive()
        fd = process.hold(peer.pid, peer.identity)
        assert fd is not None
        os.close(fd)
        assert process.hold(peer.pid, peer.identity + "1") is None
        peer.close()
        assert not peer.alive()


def test_inside_is_a_mark_an_ancestor_or_a_supervisor() -> None:
    me = os.getpid()
    assert not process.inside_session(me, ())
    assert not process.inside_session(me, {me}), "the supervisor itself is outside"
    child = _spawn(mark.new_tag())
    plain = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert process.inside_session(child.pid, ())
        assert not process.inside_session(plain.pid, ())
        assert process.inside_session(plain.pid, {me})
    finally:
        for p in (child, plain):
            p.kill()
            p.wait()
    assert process.inside_session(child.pid, ()), "gone counts as inside"


@pytest.mark.parametrize("pid", [2**22 + 7])
def test_a_process_that_is_gone_has_no_mark(pid: int) -> None:
    assert mark.tag_of(pid) == 0
