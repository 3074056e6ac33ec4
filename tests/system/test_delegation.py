"""An agent starts another inside its session: narrower, named on every row, ended with it, and never more than it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from system.harness import PYTHON, ROOT, Arena, Rules, rules
from system.site import Site

NARROW = """version = 1
[agent.probe-helper]
roles = ["narrow"]
[role.narrow.files]
read = { deny = ["$PROJECT/notes.txt"] }
write = { deny = ["$PROJECT/src/**"] }
"""


def table() -> Rules:
    """The arena's rules, and that an editable install's places may be looked into by who starts remit."""
    found = rules()
    found["read"]["allow"].append(f"{ROOT}/**")
    return found


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        a.write_policy(table())
        a.start_daemon()
        yield a
    finally:
        a.close()


@pytest.fixture(autouse=True)
def _sound_world(arena: Arena) -> None:
    arena.plant()
    Path(arena.project + "/narrow.toml").write_text(NARROW)
    arena._own(arena.project)


def inner(arena: Arena, *command: str, agent: str = "probe-helper", policy: bool = True) -> list[str]:
    """The command line by which a program in a session starts another in a sub-session."""
    narrowing = ("--policy", arena.project + "/narrow.toml") if policy else ()
    return arena.remit("run", "--agent", agent, *narrowing, "--", *command)


def quoted(words: list[str]) -> str:
    return " ".join("'" + w.replace("'", "'\\''") + "'" for w in words)


def boss(arena: Arena, script: str, **kw: Any) -> tuple[int, str, str]:
    """Run a shell script as the agent ``probe``."""
    return arena.communicate(arena.remit_run("/bin/sh", "-c", script, **kw))


def said(arena: Arena, *words: str) -> Any:
    code, out, err = arena.communicate(arena.remit(*words, "--json"))
    assert code == 0, err
    return json.loads(out)


def wait_for(what: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if got := what():
            return got
        time.sleep(0.03)
    raise AssertionError(f"did not come within {seconds} s")


def test_a_sub_session_is_narrower_and_named(arena: Arena) -> None:
    helper = quoted(
        inner(arena, "/bin/sh", "-c", "cat notes.txt; echo new > src/main.c; echo other > other.txt; id -u")
    )
    code, out, err = boss(
        arena, f"{helper}; echo status $?; cat notes.txt other.txt; echo mine > src/main.c"
    )
    assert code == 0, err
    assert f"{os.stat(arena.project).st_uid}\nstatus 0\n" in out, out + err
    assert out.count("int main") == 1, "the boss alone reads it"
    assert out.endswith("other\n")
    assert Path(arena.project + "/src/main.c").read_text() == "mine\n"
    sub = said(arena, "sessions")[-1]
    assert sub["agent"] == "probe-helper of probe"
    assert sub["state"] == "ended"
    rows = said(arena, "log", "--session", sub["id"])
    assert {r["agent"] for r in rows} == {"probe-helper of probe"}
    refused = {(r["op"], r["path"]) for r in rows if r["outcome"] == "refused"}
    assert ("read", arena.project + "/notes.txt") in refused
    assert ("write", arena.project + "/src/main.c") in refused
    (first,) = [r for r in rows if r["op"] == "session" and r["outcome"] == "started"]
    assert f"delegated by {sub['parent']}" in first["note"]
    assert said(arena, "log", "--agent", "probe-helper", "--session", sub["id"]) == rows
    who = said(arena, "who", arena.project + "/other.txt")
    assert (who["agent"], who["session"]) == ("probe-helper of probe", sub["id"])


# -- questions -------------------------------------------------------------------------------------


def answers(arena: Arena, path: str, *more: str, times: int = 1) -> list[Any]:
    """Answer the next open questions about ``path`` with allow; returns them."""
    done: list[Any] = []
    while len(done) < times:
        found = wait_for(lambda: [p for p in said(arena, "prompts") if p["path"] == path and p["holding"]])
        done.append(found[0])
        said(arena, "answer", found[0]["id"], "allow", *more)
    return done


def test_a_question_names_the_chain_and_an_answer_for_longer_is_for_all_who_ask(arena: Arena) -> None:
    asked = arena.info["asked_file"]
    helper = quoted(inner(arena, "/bin/cat", asked, policy=False))
    running = arena.popen(
        arena.remit_run("/bin/sh", "-c", f"{helper} && {helper} && cat {asked}", ask="prompt"),
        stdout=subprocess.PIPE,
    )
    (prompt,) = answers(arena, asked, "--for", "session")
    assert prompt["agent"] == "probe-helper of probe"
    assert prompt["scopes"][0]["rule"].startswith("allow probe-helper of probe and probe read")
    # The second one has that name too, but the answer was for the first one's life; the session above has its own by now.
    (again,) = answers(arena, asked)
    assert again["session"] != prompt["session"]
    assert again["scopes"][0]["rule"].startswith("allow probe-helper of probe read")
    out, _ = running.communicate(timeout=20)
    assert out.decode().split() == [arena.tokens["asked"]] * 3


def test_once_is_for_the_one_that_asked(arena: Arena) -> None:
    asked = arena.info["asked_file"]
    helper = quoted(inner(arena, "/bin/cat", asked, policy=False))
    running = arena.popen(
        arena.remit_run(
            "/bin/sh", "-c", f"{helper}; echo then; cat {asked}", ask="prompt", options=("--hold", "1s")
        ),
        stdout=subprocess.PIPE,
    )
    answers(arena, asked)
    out, _ = running.communicate(timeout=20)
    assert out.decode().split() == [arena.tokens["asked"], "then"], "the session above still has to ask"


# -- ends and comebacks ----------------------------------------------------------------------------


def live(arena: Arena, agent: str) -> list[Any]:
    return [s for s in said(arena, "sessions") if s["agent"] == agent and s["state"] == "running"]


def test_stopping_a_sub_session_ends_its_tree_alone(arena: Arena) -> None:
    helper = quoted(inner(arena, "/bin/sh", "-c", "(setsid sleep 70 &) ; exec sleep 71"))
    running = arena.popen(
        arena.remit_run("/bin/sh", "-c", f"{helper}; echo over $?"), stdout=subprocess.PIPE
    )
    (sub,) = wait_for(lambda: live(arena, "probe-helper of probe"))
    wait_for(lambda: sleepers("70") and sleepers("71"))
    assert arena.communicate(arena.remit("stop", sub["id"]))[0] == 0
    out, _ = running.communicate(timeout=20)
    assert out.startswith(b"over 1")
    assert running.returncode == 0
    assert not sleepers("70")
    assert not sleepers("71")


def test_a_sub_session_ends_with_the_one_above(arena: Arena) -> None:
    helper = quoted(inner(arena, "/bin/sh", "-c", "trap '' TERM HUP; (setsid sleep 72 &) ; sleep 73"))
    running = arena.popen(arena.remit_run("/bin/sh", "-c", helper), stdout=subprocess.PIPE)
    (sub,) = wait_for(lambda: live(arena, "probe-helper of probe"))
    wait_for(lambda: sleepers("72") and sleepers("73"))
    assert arena.communicate(arena.remit("stop", sub["parent"]))[0] == 0
    running.communicate(timeout=20)
    wait_for(lambda: not sleepers("72") and not sleepers("73"))
    wait_for(lambda: not live(arena, "probe-helper of probe"))


def sleepers(seconds: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if line == b"sleep\0" + seconds.encode() + b"\0":
                found.append(int(name))
    return found


def test_what_it_leaves_running_ends_with_its_first_program(arena: Arena) -> None:
    helper = quoted(inner(arena, "/bin/sh", "-c", "(setsid sleep 74 &) ; (setsid sleep 74 &) ; sleep 0.1"))
    gone = "i=0; while pgrep -xf 'sleep 74' >/dev/null; do sleep 0.1; i=$((i+1)); test $i -lt 99 || exit 9; done"
    code, out, err = boss(arena, f"{helper}; {gone}; echo gone")
    assert (code, out) == (0, "gone\n"), err
    assert not sleepers("74")


def test_a_paused_sub_session_stands_still_alone(arena: Arena) -> None:
    beat = "i=0; while test ! -e stop; do echo x >> other.txt; sleep 0.02; done; echo over"
    helper = quoted(inner(arena, "/bin/sh", "-c", beat))
    running = arena.popen(
        arena.remit_run("/bin/sh", "-c", f"{helper} & {beat.replace('other', 'mine')}; wait"),
        stdout=subprocess.PIPE,
    )
    (sub,) = wait_for(lambda: live(arena, "probe-helper of probe"))
    own, above = Path(arena.project + "/other.txt"), Path(arena.project + "/mine.txt")
    wait_for(lambda: own.exists() and above.exists())
    assert arena.communicate(arena.remit("pause", sub["id"]))[0] == 0
    wait_for(lambda: states(sub["id"]) == {"T"})
    size, size_above = own.stat().st_size, above.stat().st_size
    wait_for(lambda: above.stat().st_size > size_above + 20)
    assert own.stat().st_size == size
    assert arena.communicate(arena.remit("resume", sub["id"]))[0] == 0
    wait_for(lambda: own.stat().st_size > size)
    Path(arena.project + "/stop").touch()
    out, _ = running.communicate(timeout=20)
    assert out == b"over\nover\n"


def states(session: str) -> set[str]:
    """The states of the processes whose environment names ``session``."""
    found = set()
    for name in os.listdir("/proc"):
        try:
            if (
                name.isdigit()
                and f"REMIT_SESSION={session}\0".encode() in Path(f"/proc/{name}/environ").read_bytes()
            ):
                found.add(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0])
        except OSError:
            pass
    return found


def test_remitd_killed_and_back_the_same_sub_session_goes_on(arena: Arena) -> None:
    asked = arena.info["asked_file"]
    helper = quoted(
        inner(arena, "/bin/sh", "-c", f"cat {asked}; cat notes.txt; echo late > src/main.c; echo end")
    )
    running = arena.popen(
        arena.remit_run("/bin/sh", "-c", f"{helper}; echo over", ask="prompt"), stdout=subprocess.PIPE
    )
    (prompt,) = wait_for(lambda: [p for p in said(arena, "prompts") if p["path"] == asked and p["holding"]])
    (sub,) = live(arena, "probe-helper of probe")
    arena.stop_daemon(signal.SIGKILL)
    arena.start_daemon()
    (again,) = answers(arena, asked)
    assert again["id"] == prompt["id"]
    out, _ = running.communicate(timeout=20)
    assert out.decode().split() == [arena.tokens["asked"], "end", "over"]
    assert Path(arena.project + "/src/main.c").read_text() != "late\n"
    rows = wait_for(
        lambda: [r for r in said(arena, "log", "--session", sub["id"]) if r["path"].endswith("main.c")]
    )
    assert rows[-1]["outcome"] == "refused"
    wait_for(lambda: not live(arena, "probe-helper of probe"))


# -- tokens, words, network ------------------------------------------------------------------------


def test_its_token_names_the_chain_and_is_nobody_elses(arena: Arena) -> None:
    show = quoted(arena.remit("token", "introspect", "--json"))
    issue = quoted(arena.remit("token", "issue"))
    helper = quoted(inner(arena, "/bin/sh", "-c", f"{issue} > src.token; {show} < src.token", policy=False))
    _, out, err = boss(arena, f"{helper}; {show} < src.token; {issue} > own; {show} < own")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 3, out + err
    assert lines[0]["act"] == {"sub": "probe-helper", "act": {"sub": "probe"}}
    assert not lines[1]["active"], "the sub-session is over, and it was never the other's"
    assert lines[2]["act"] == {"sub": "probe"}


@pytest.mark.parametrize(
    ("options", "says", "status"),
    [
        (["--agent", "a b"], "letters, digits", 2),
        (["--project", "/"], "are those of the session", 2),
        (["--policy", "/nonexistent"], "no such file", 2),
        (["--policy", "bad.toml"], "the policy given:3", 2),
    ],
)
def test_what_is_wrong_is_said(arena: Arena, options: list[str], says: str, status: int) -> None:
    Path(arena.project + "/bad.toml").write_text("version = 1\n[role.x.files]\nread = 7\n")
    arena._own(arena.project)
    wrong = quoted(arena.remit("run", *options, "--", "/bin/true"))
    code, _, err = boss(arena, wrong)
    assert (code, says in err) == (status, True), err
    assert "Traceback" not in err


def test_deeper_than_two_is_refused(arena: Arena) -> None:
    deep = inner(arena, "/bin/echo", "three", policy=False)
    for _ in range(2):
        deep = inner(arena, *deep, policy=False)
    code, out, err = boss(arena, quoted(deep))
    assert (code, out) == (1, ""), err
    assert "at most 2 deep" in err
    two = inner(arena, *inner(arena, "/bin/echo", "two", agent="probe-third", policy=False), policy=False)
    assert boss(arena, quoted(two))[1] == "two\n"
    assert said(arena, "sessions")[-1]["agent"] == "probe-third of probe-helper of probe"


def test_a_status_and_a_missing_program(arena: Arena) -> None:
    assert boss(arena, quoted(inner(arena, "/bin/sh", "-c", "exit 7")))[0] == 7
    assert boss(arena, quoted(inner(arena, "no-such-program")))[0] == 127


def test_its_commits_say_who_assisted_whom(arena: Arena) -> None:
    commit = "git init -q repo && cd repo && echo x > f && git add f && git commit -qm text && git log -1 --format=%B"
    code, out, err = boss(arena, quoted(inner(arena, "/bin/sh", "-c", commit, policy=False)))
    assert code == 0, err
    sub = said(arena, "sessions")[-1]["id"]
    assert out.split("\n")[2:4] == ["Assisted-by: probe-helper of probe", f"Remit-Session: {sub}"]


NET = """
[role.probe.net."localhost:{port}"]
GET = {{ allow = ["/ok", "/headers"] }}
"""
NARROW_NET = """version = 1
[agent.probe-helper]
roles = ["narrow"]
[role.narrow.net."localhost:{port}"]
GET = {{ deny = ["/headers"] }}
"""


def test_its_network_is_narrowed_by_a_gateway_of_its_own(arena: Arena) -> None:
    site = Site()
    try:
        arena.write_policy(table(), more=NET.format(port=site.port))
        Path(arena.project + "/narrow.toml").write_text(NARROW_NET.format(port=site.port))
        arena._own(arena.project)
        curl = f"curl -sS -o /dev/null -w '%{{http_code}} ' {site.url}"
        both = f"{curl}/ok; {curl}/headers"
        code, out, err = boss(arena, f"{both}; {quoted(inner(arena, '/bin/sh', '-c', both))}; {both}")
        assert (code, out) == (0, "200 200 200 403 200 200 "), err
        sub = said(arena, "sessions")[-1]
        rows = [r for r in said(arena, "log", "--session", sub["id"]) if r["op"] == "request"]
        assert [(r["verdict"], r["agent"]) for r in rows] == [
            ("allow", "probe-helper of probe"), ("deny", "probe-helper of probe"),
        ]  # fmt: skip
        proxied = f"curl -sS -o /dev/null -w '%{{http_code}} ' --noproxy '' {site.url}/headers"
        code, out, err = boss(arena, f"{proxied}; {quoted(inner(arena, '/bin/sh', '-c', proxied))}")
        assert out == "200 403 ", "the proxy that its environment names is its own too: " + err
    finally:
        site.close()
        arena.write_policy(table())


def test_no_sub_session_where_the_filter_would_not_see_it(arena: Arena) -> None:
    try:
        arena.write_policy(table(), more='[role.probe]\nreads = "fixed"\n')
        code, _, err = boss(arena, quoted(inner(arena, "/bin/true")))
        assert code == 1
        assert 'reads = "fixed"' in err
        arena.write_policy(table(), more="[role.probe.net]\nall = true\n")
        code, _, err = boss(arena, quoted(inner(arena, "/bin/true", agent="plain", policy=False)))
        assert code == 1
        assert "net.all" in err
        assert boss(arena, quoted(inner(arena, "/bin/true", policy=False)))[0] == 0
    finally:
        arena.write_policy(table())


# -- hostile ---------------------------------------------------------------------------------------

JAIL = """version = 1
[agent.probe-helper]
roles = ["jail"]
[role.jail.files]
read = { deny = ["KEY"] }
"""


def hostile(arena: Arena, sub: bool, *names: str) -> dict[str, str]:
    """Run the attempts in a sub-session of a session that leaves much open, or, for comparison, in that very session."""
    key = arena.home + "/readonly/key"
    Path(key).write_text("TOKEN-sub-0123456789\n")
    Path(arena.project + "/narrow.toml").write_text(JAIL.replace("KEY", key))
    arena._own(arena.home + "/readonly")
    arena._own(arena.project)
    attack = [PYTHON, f"{arena.project}/probe/_sub.py", *names]
    told = {"key": key, "free": arena.home + "/readonly/doc.txt"}
    code, out, err = arena.communicate(
        arena.remit_run(
            PYTHON, f"{arena.project}/probe/_boss.py", *(inner(arena, *attack) if sub else attack)
        ),
        90,
        env=arena.env | {"SUB": json.dumps(told)},
    )
    assert code == 0, out + err
    return {
        [*line.split(), ""][1]: line
        for line in out.splitlines()
        if line.startswith(("HELD", "ESCAPED", "VICTIM"))
    }


FOR_ANYBODY = (
    "plain", "by_other_names", "read_race", "link_race", "truncate", "limits_of_the_one_above", "signal_the_one_above",
    "look_into_the_one_above", "act_through_the_one_above", "descendants", "claim_what_is_wider", "delegate_as_the_one_above",
)  # fmt: skip


def test_the_attempts_get_through_where_there_is_no_sub_session(arena: Arena) -> None:
    found = hostile(arena, False, *FOR_ANYBODY)
    assert not [line for name, line in found.items() if name in FOR_ANYBODY and line.startswith("HELD")]
    assert set(FOR_ANYBODY) <= set(found)


def test_a_hostile_sub_session_is_held(arena: Arena) -> None:
    found = hostile(arena, True)
    assert not [line for line in found.values() if line.startswith("ESCAPED")], "\n".join(found.values())
    assert "VICTIM as it was" in found.values()
    assert len(found) == 20
