"""A session behaves like the program that it runs: statuses, pipes, terminal, signals; and remit's promises on top."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from system.harness import PYTHON, Arena, rules

ANSWER_SECONDS = 5.0


@pytest.fixture(autouse=True)
def _sound_world(arena: Arena) -> None:
    arena.plant()
    arena.write_policy()
    if arena.daemon is None or arena.daemon.poll() is not None:
        arena.start_daemon()


def run(arena: Arena, *command: str, **kw: Any) -> tuple[int, str, str]:
    options = {k: kw.pop(k) for k in ("ask", "agent", "options") if k in kw}
    return arena.communicate(arena.remit_run(*command, **options), **kw)


def wait_for(what: Callable[[], Any], seconds: float = ANSWER_SECONDS) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = what()
        if got:
            return got
        time.sleep(0.03)
    raise AssertionError(f"did not come within {seconds} s")


def said(arena: Arena, *words: str) -> Any:
    code, out, err = arena.communicate(arena.remit(*words, "--json"))
    assert code == 0, err
    return json.loads(out)


def open_prompt(arena: Arena) -> str:
    """Return the id of the open prompt about the asked file, when there is one."""
    path = arena.info["asked_file"]

    def find() -> list[str]:
        return [
            p["id"]
            for p in said(arena, "prompts")
            if p["state"] == "open" and p["path"] == path and p["holding"]
        ]

    return str(wait_for(find)[0])


# -- like the program itself ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_status_is_the_agents(arena: Arena, status: int) -> None:
    assert run(arena, "/bin/sh", "-c", f"exit {status}")[0] == status


def test_status_of_a_killed_agent(arena: Arena) -> None:
    assert run(arena, "/bin/sh", "-c", "kill -TERM $$")[0] == -signal.SIGTERM


def test_missing_program_is_127(arena: Arena) -> None:
    code, _, err = run(arena, "no-such-program-anywhere")
    assert code == 127
    assert "no-such-program-anywhere" in err


def test_program_that_cannot_run_is_126(arena: Arena) -> None:
    code, _, _ = run(arena, arena.project + "/notes.txt")
    assert code == 126


def test_no_command_is_a_usage_error(arena: Arena) -> None:
    assert arena.communicate(arena.remit("run"))[0] == 2


def test_input_and_outputs_pass_through(arena: Arena) -> None:
    data = os.urandom(1 << 16).hex().encode()
    code, out, err = run(arena, "/bin/sh", "-c", "cat; echo aside >&2", data=data)
    assert (code, out) == (0, data.decode())
    assert "aside" in err


def test_in_a_pipeline(arena: Arena) -> None:
    inner = " ".join(arena.remit_run("/bin/echo", "through"))
    code, out, _ = arena.communicate(["/bin/sh", "-c", f"echo x | {inner} | tr a-z A-Z"])
    assert (code, out) == (0, "THROUGH\n")


def test_reader_gone_ends_the_writer(arena: Arena) -> None:
    inner = " ".join(arena.remit_run("/usr/bin/yes"))
    code, out, _ = arena.communicate(["/bin/sh", "-c", f"{inner} | head -n 1"], 10)
    assert (code, out) == (0, "y\n")


def test_window_size_and_terminal(arena: Arena) -> None:
    script = "import os,sys; print(sys.stdin.isatty(), sys.stdout.isatty(), *os.get_terminal_size(0))"
    code, out, _ = arena.on_terminal(arena.remit_run(PYTHON, "-c", script))
    assert code == 0, out
    assert "True True" in out


def test_interrupt_key_reaches_the_agent(arena: Arena) -> None:
    script = (
        "import time\ntry:\n  print('go', flush=True); time.sleep(20)\n"
        "except KeyboardInterrupt:\n  print('interrupted'); raise SystemExit(7)\n"
    )
    began = time.monotonic()
    import pty as terminal

    leader, follower = terminal.openpty()
    own = "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    process = arena.popen(
        [PYTHON, "-c", own, *arena.remit_run(PYTHON, "-c", script)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    out = b""
    while b"go" not in out:
        out += os.read(leader, 4096)
    os.write(leader, b"\x03")
    assert process.wait(10) == 7, out
    assert time.monotonic() - began < 15
    os.close(leader)


def test_stop_and_continue(arena: Arena) -> None:
    process = arena.popen(
        arena.remit_run("/bin/sh", "-c", "echo go; sleep 1; exit 5"), stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"go\n"
    process.send_signal(signal.SIGTSTP)
    time.sleep(0.3)
    process.send_signal(signal.SIGCONT)
    assert process.wait(10) == 5


def test_background_programs_end_with_the_session(arena: Arena) -> None:
    script = "setsid sleep 300 & echo $! ; exit 0"
    code, out, err = run(arena, "/bin/sh", "-c", script)
    assert code == 0, err
    pid = int(out.split()[0])
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 3)


def test_environment_is_scrubbed_and_kept(arena: Arena) -> None:
    env = arena.env | {"NODE_OPTIONS": "--x", "BASH_ENV": "/x", "PYTHONSTARTUP": "/x", "KEPT": "yes"}
    code, out, _ = run(arena, "/usr/bin/env", env=env)
    names = {line.partition("=")[0] for line in out.splitlines()}
    assert code == 0
    assert "KEPT" in names
    assert not names & {"NODE_OPTIONS", "BASH_ENV", "PYTHONSTARTUP"}


def test_a_wrapper_is_told_what_its_agent_needs(arena: Arena) -> None:
    code, _, err = run(arena, "/bin/sh", "-c", "exit 0", agent="codex")
    assert code == 0
    assert "danger-full-access" in err


# -- prompts, ledger, policy ------------------------------------------------------------------------


class Held:
    """An agent that reads the asked file, held at its prompt."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        table = rules()
        table["read"]["ask"] = ["$HOME/asked/**"]
        arena.write_policy(table)
        self.got: tuple[int, str, str] | None = None
        argv = arena.remit_run(
            "/bin/cat", arena.info["asked_file"], ask="prompt", options=("--hold", "20s")
        )
        self.thread = threading.Thread(target=self._run, args=(argv,))
        self.thread.start()

    def _run(self, argv: list[str]) -> None:
        self.got = self.arena.communicate(argv)

    def prompt(self) -> str:
        return str(
            wait_for(lambda: [p["id"] for p in said(self.arena, "prompts") if p["state"] == "open"])[0]
        )

    def end(self) -> tuple[int, str, str]:
        self.thread.join(10)
        assert self.got is not None, "still held"
        return self.got


def test_a_prompt_names_the_processes_that_led_to_it(arena: Arena) -> None:
    table = rules()
    table["read"]["ask"] = ["$HOME/asked/**"]
    arena.write_policy(table)
    script = f"sh -c 'cat {arena.info['asked_file']}; true'; true"
    argv = arena.remit_run("/bin/sh", "-c", script, ask="prompt", options=("--hold", "20s"))
    process = arena.popen(argv)
    (prompt,) = wait_for(lambda: [p for p in said(arena, "prompts") if p["comm"] == "cat"])
    assert [p["comm"] for p in prompt["chain"]] == ["sh", "sh"]
    assert all(p["pid"] != process.pid for p in prompt["chain"]), "the supervisor is ours"
    _, out, _ = arena.communicate(arena.remit("answer", prompt["id"], "deny", "--preview"))
    assert "deny probe read" in out
    assert arena.communicate(arena.remit("answer", prompt["id"], "deny"))[0] == 0
    assert process.wait(10) == 0


def test_held_then_allowed_then_recorded(arena: Arena) -> None:
    held = Held(arena)
    prompt = held.prompt()
    assert arena.communicate(arena.remit("answer", prompt, "allow"))[0] == 0
    code, out, err = held.end()
    assert code == 0, err
    assert arena.tokens["asked"] in out
    rows = wait_for(
        lambda: [e for e in said(arena, "log", "--path", arena.info["asked_file"]) if e["verdict"] == "ask"]
    )
    assert {e["agent"] for e in rows} == {"probe"}
    assert {e["actor"] for e in rows} == {"agent"}


def test_held_then_denied(arena: Arena) -> None:
    held = Held(arena)
    arena.communicate(arena.remit("answer", held.prompt(), "deny"))
    code, out, err = held.end()
    assert code == 1, err
    assert arena.tokens["asked"] not in out


def test_daemon_killed_while_held(arena: Arena) -> None:
    held = Held(arena)
    prompt = held.prompt()
    arena.stop_daemon(signal.SIGKILL)
    time.sleep(0.3)
    arena.start_daemon()
    assert held.prompt() == prompt
    assert arena.communicate(arena.remit("answer", prompt, "allow"))[0] == 0
    code, out, err = held.end()
    assert code == 0, err
    assert arena.tokens["asked"] in out


READER = """
import sys, time
for line in sys.stdin:
    try:
        print("read" if open(line.strip()).read() else "empty", flush=True)
    except OSError as e:
        print("refused", flush=True)
"""


class Reader:
    """An agent that reads each file that it is told, and says whether it could."""

    def __init__(self, arena: Arena, **kw: Any) -> None:
        self.process = arena.popen(
            arena.remit_run(PYTHON, "-c", READER, **kw), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def read(self, path: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(path.encode() + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().strip()

    def close(self) -> int:
        self.process.communicate(timeout=10)
        return self.process.returncode


def test_policy_takes_effect_on_the_next_open(arena: Arena) -> None:
    path = arena.project + "/notes.txt"
    reader = Reader(arena)
    assert reader.read(path) == "read"
    table = rules()
    table["read"]["deny"].append("$PROJECT/notes.txt")
    arena.write_policy(table)
    wait_for(lambda: reader.read(path) == "refused")
    arena.write_policy()
    wait_for(lambda: reader.read(path) == "read")
    assert reader.close() == 0


def test_revoked_grant_takes_effect_on_the_next_open(arena: Arena) -> None:
    path = arena.info["asked_file"]
    arena.write_policy()
    reader = Reader(arena, ask="prompt", options=("--hold", "20s"))
    answer: list[str] = []
    thread = threading.Thread(target=lambda: answer.append(reader.read(path)))
    thread.start()
    prompt = open_prompt(arena)
    assert arena.communicate(arena.remit("answer", prompt, "allow", "--for", "session"))[0] == 0
    thread.join(10)
    assert answer == ["read"]
    assert reader.read(path) == "read"
    assert arena.communicate(arena.remit("revoke", "--all"))[0] == 0
    thread = threading.Thread(target=lambda: answer.append(reader.read(path)))
    thread.start()
    prompt = open_prompt(arena)
    arena.communicate(arena.remit("answer", prompt, "deny"))
    thread.join(10)
    assert answer[1] == "refused"
    assert reader.close() == 0


# -- real tools, nobody there to answer ---------------------------------------------------------------

TOOLS = {
    "git": "rm -rf r && mkdir r && cd r && git init -q && echo a > a && git add a && "
    "git -c user.name=a -c user.email=a@b commit -qm one && git log --oneline && git status --short && git gc -q",
    "python3": "python3 -m json.tool --help > /dev/null && python3 -c 'import ssl, sqlite3, asyncio'",
    "pip": "python3 -m pip --version",
    "node": "node -e 'require(\"fs\").writeFileSync(\"n.txt\", \"1\"); console.log(1)'",
    "npm": "mkdir -p pkg && echo '{\"name\":\"p\",\"version\":\"1.0.0\"}' > pkg/package.json && cd pkg && npm_config_cache=$PWD/.npm npm pack --silent",
    "gcc": "gcc -o src/main src/main.c && src/main",
    "make": "printf 'all: a.o b.o ; @true\\n%%.o: src/main.c\\n\\tgcc -c -o $@ $<\\n' > Makefile && make -j2 -s",
    "tar": "tar cf src.tar src && mkdir -p out && tar xf src.tar -C out && diff -r src out/src",
    "tmux": "tmux -f /dev/null new-session -d 'sleep 1' && tmux ls && tmux kill-server",
}  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_works_unattended(arena: Arena, tool: str) -> None:
    if not shutil.which(tool) and tool != "pip":
        pytest.fail(f"{tool} is not installed here, so nothing was shown")
    shutil.rmtree(arena.project + "/.git", ignore_errors=True)
    known = {p["id"] for p in said(arena, "prompts")}
    code, out, err = run(arena, "/bin/sh", "-ec", TOOLS[tool], seconds=60)
    assert code == 0, out + err + json.dumps(said(arena, "denials"))[-3000:]
    assert not [p for p in said(arena, "prompts") if p["id"] not in known]


def test_an_application_is_asked_for_as_what_it_is(arena: Arena) -> None:
    """The screen's socket is held until the person answers, who is told what that means; a session's yes lasts for it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(arena.run_dir + "/wayland-7")
    listener.listen()
    os.chmod(arena.run_dir + "/wayland-7", 0o777)
    script = (
        "import socket, os\n"
        "for _ in 'ab':\n"
        "    socket.socket(socket.AF_UNIX).connect(os.environ['WHERE'])\n"
        "    print('drawn', flush=True)"
    )
    env = arena.env | {"WHERE": arena.run_dir + "/wayland-7"}
    argv = arena.remit_run("/usr/bin/env", "-u", "PYTHONPATH", PYTHON, "-c", script, ask="prompt")
    process = arena.popen(argv, env=env, stdout=subprocess.PIPE)
    try:
        prompt = wait_for(lambda: [p for p in said(arena, "prompts") if p["path"] == "app:screen"])[0]
        assert "everything on your screen" in prompt["scopes"][0]["label"]
        code, _, err = arena.communicate(arena.remit("answer", prompt["id"], "allow", "--for", "session"))
        assert code == 0, err
        assert process.communicate(timeout=10)[0] == b"drawn\ndrawn\n"
    finally:
        listener.close()
        os.unlink(arena.run_dir + "/wayland-7")
    uses = [r for r in said(arena, "log") if r["op"] == "use" and r["path"] == "app:screen"]
    assert [r["outcome"] for r in uses][-2:] == ["ok", "ok"]
    assert uses[-1]["note"] == arena.run_dir + "/wayland-7"


def test_a_session_has_a_token_of_its_own(arena: Arena) -> None:
    """Issued inside, narrowed for a sub-agent, good there alone, gone with the session."""
    remit = " ".join(arena.remit("token"))
    place = f"files:read={arena.project}/src/**"
    script = f"""
set -e
own=$({remit} issue --scope editor --detail files:read={arena.project}/**)
printf %s "$own" > own
sub=$(printf %s "$own" | {remit} exchange --agent helper --detail {place})
printf %s "$sub" | {remit} introspect
printf %s "$own" | {remit} exchange --agent thief --scope exec:run || echo refused
printf %s "$own" | {remit} revoke
printf %s "$sub" | {remit} introspect || echo gone
{remit} issue > kept
"""
    code, out, err = run(arena, "/bin/sh", "-c", script)
    assert code == 0, err
    assert "helper of probe, on behalf of" in out.split("\n")[0]
    assert f"files:read {arena.project}/src/**" in out
    assert "refused" in out
    assert out.strip().endswith("gone")
    assert "not the parent's: exec:run" in err
    kept = Path(arena.project, "kept").read_text().strip()
    wait_for(lambda: said(arena, "token", "list") == [])  # the session is over
    code, out, _ = arena.communicate(arena.remit("token", "introspect"), data=kept.encode())
    assert (code, "not active" in out) == (1, True)
    code, out, _ = run(arena, "/bin/sh", "-c", f"printf %s {kept} | {remit} introspect")
    assert (code, "not active" in out) == (1, True)


# -- what nobody is asked about -------------------------------------------------------------------


def test_what_linux_refuses_anyway_is_no_question(arena: Arena) -> None:
    shut = Path(arena.info["asked_file"]).parent / "shut"  # ours; what counts is that it may not be written
    shut.mkdir(mode=0o555)
    script = f"echo x > {shut}/new; mkdir {shut}/dir; echo x > /etc/hosts; chmod 600 /etc/hosts; exit 5"
    code, _, err = run(arena, "/bin/sh", "-c", script, ask="prompt", options=("--hold", "20s"))
    assert code == 5
    assert err.lower().count("permission denied") == 4, err
    about = {str(shut / "new"), str(shut / "dir"), "/etc/hosts"}
    assert not [p for p in said(arena, "prompts", "--all") if p["path"] in about]
    refused = [e for e in said(arena, "denials") if e["path"] in about]
    assert {e["path"] for e in refused} == about
    assert {e["rule"] for e in refused} == {"built-in: Linux itself refuses this account"}


def test_an_interactive_shell_starts_without_a_question(arena: Arena) -> None:
    history = Path(arena.home, ".bash_history")
    history.write_text("typed before\n")
    argv = arena.remit_run("bash", "--norc", "-i", ask="prompt", options=("--hold", "20s"))
    code, out, _ = arena.on_terminal(argv, data=b"echo typed inside\nexit 3\n")
    assert code == 3, out
    assert "nothing shows you its prompts yet" in out
    assert not [p for p in said(arena, "prompts", "--all") if p["path"] == str(history)]
    assert history.read_text() == "typed before\n"


def test_a_policy_with_a_mistake_is_told_at_the_start_and_the_last_good_one_holds(arena: Arena) -> None:
    file = Path(arena.write_policy())
    assert run(arena, "/bin/true")[::2] == (0, "")
    file.write_text(file.read_text() + "\n[role.x.files]\nraed = 1\n")
    code, _, err = run(arena, "/bin/true")
    assert code == 0
    assert f"WARNING: {file}:" in err
    assert "the last good policy is in force" in err
    arena.write_policy()
    assert run(arena, "/bin/true")[::2] == (0, "")


# -- what is said at the end ----------------------------------------------------------------------


def test_the_end_is_told_on_a_terminal_alone_and_the_report_has_it_whole(arena: Arena) -> None:
    key = arena.home + "/.ssh/id_ed25519"
    script = f"echo made > {arena.project}/made.txt; cat {key}; exit 7"
    code, out, _ = arena.on_terminal(arena.remit_run("/bin/sh", "-c", script))
    assert code == 7
    told = [line for line in out.splitlines() if line.startswith("remit: ")]
    assert "1 file changed" in told[0], out
    assert any("denied: read" in line and key in line for line in told), told
    assert len(told) <= 6
    session = told[0].split()[2]
    assert told[-1] == f"remit: `remit session show {session}` says more"
    found = said(arena, "session", "show", session)
    assert arena.project + "/made.txt" in found["changed"]["paths"]
    assert key in [d["path"] for d in found["denied"]["what"]]
    _, _, err = run(arena, "/bin/sh", "-c", script)
    assert "remit: " not in err


def test_a_session_whose_terminal_is_gone_ends_though_there_is_something_to_say(arena: Arena) -> None:
    master, slave = os.openpty()
    script = f"echo made > {arena.project}/made.txt; echo ready; read _"
    process = arena.popen(
        arena.remit_run("/bin/sh", "-c", script),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    seen = b""
    while b"ready" not in seen:
        seen += os.read(master, 4096)
    os.close(master)
    assert process.wait(20) is not None


def test_a_session_that_did_nothing_to_speak_of_ends_silently(arena: Arena) -> None:
    _, out, _ = arena.on_terminal(arena.remit_run("/bin/sh", "-c", "echo done"))
    assert out.strip() == "done"


def test_an_agent_does_not_widen_the_policy_file_that_it_was_given(arena: Arena) -> None:
    """The file lies in the project, where the agent may write, and is read again when it changes."""
    arena.plant()
    file, asked = arena.project + "/given.toml", arena.info["asked_file"]
    head = 'version = 1\n[agent.probe]\nroles = ["given"]\n[role.given.files]\n'
    Path(file).write_text(head + 'read = { deny = ["~/asked/**"] }\n')
    arena._own(arena.project)
    code = f"""
import os, time
time.sleep(1)  # it has been looked at
for change in (
    lambda: open({file!r}, "w").write({head!r} + 'read = {{ allow = ["~/asked/**"] }}\\n'),
    lambda: os.rename({arena.project + "/notes.txt"!r}, {file!r}),
    lambda: os.unlink({file!r}),
    lambda: os.rename({arena.project!r}, {arena.project + "2"!r}),
):
    try:
        change()
        print("changed")
    except OSError:
        pass
time.sleep(1)
try:
    print(open({asked!r}).read())
except OSError:
    pass
"""
    done = arena.communicate(arena.remit_run(PYTHON, "-c", code, options=("--policy", file)))
    assert done == (0, "", "")
