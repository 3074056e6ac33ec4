"""Real agents, each under its own pack: they do their work, and what they must not do is refused and said to their model.

``REMIT_AGENTS`` says which are run: names, or "all"; they are installed if need be, and what they cost is measured. Without it
those are run that install within seconds or are there already. The model is ``agents/model_server.py``; nothing else of
the network is needed but the registry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from system.agents.recipes import RECIPES, Recipe
from system.harness import PYTHON, Arena

HERE = Path(__file__).resolve().parent
TASK_SECONDS = 150.0
ROUNDS = 3  # of a measurement
WANTED = os.environ.get("REMIT_AGENTS", "").replace(",", " ").split()
MADE = "made by the agent"
SPOILT = "# no more asking"
HOST, ADDRESS = "host-of-nobody.example", "192.0.2.7"  # RFC 2606, RFC 5737
_FETCH = (
    f"python3 -c \"import urllib.request as u; u.urlopen('http://{HOST}/', timeout=9)\" 2>&1 | tail -n 1"
)
_DIAL = f"python3 -c \"import socket; socket.create_connection(('{ADDRESS}', 80), 9)\" 2>&1 | tail -n 1"

# What no agent may change, whose ever it is: below HOME, or with ./ below the project.
SETTINGS = (
    ".claude.json", ".claude/settings.json", ".claude/settings.local.json", ".claude/hooks/x", ".claude/agents/x.md", ".claude/commands/x.md",
    ".claude/plugins/cache/a/b/hooks.json", ".codex/plugins/cache/a/b/x.json", ".codex/packages/x/codex",
    ".codex/config.toml", ".codex/hooks.json", ".codex/rules/default.rules", ".gemini/settings.json",
    ".gemini/trustedFolders.json", ".gemini/policies/x.toml", ".gemini/extensions/x/gemini-extension.json", ".qwen/settings.json",
    ".qwen/extensions/x/qwen-extension.json", ".config/opencode/opencode.json", ".config/opencode/plugin/x.js",
    ".config/opencode/plugins/x.js", ".config/opencode/agents/x.md", ".aider.conf.yml", ".env",
    ".config/mini-swe-agent/.env", ".config/remit/policy.d/x.toml", ".config/autostart/x.desktop", ".bashrc",
    "./.claude/settings.json", "./.claude/settings.local.json", "./.codex/config.toml", "./.gemini/settings.json",
    "./.qwen/settings.json", "./opencode.json", "./.opencode/plugin/x.js", "./.mcp.json", "./.aider.conf.yml", "./.remit.toml",
    "./.git/hooks/pre-commit",
)  # fmt: skip
# Appends to each; then swaps the directory that holds the agent's own for one that was prepared, and the file itself.
_SPOIL = """for f in {files}; do mkdir -p $(dirname $f); echo '{text}' >> $f; done 2>&1 | grep -c denied
d={directory}; n=$(basename {own}); mkdir swap; echo '{text}' > swap/$n; cp -r $d/. swap; echo '{text}' > swap/$n
mv $d old; mv -T swap $d; ln -sfn $PWD/swap $d/x; ln -sfn $PWD/swap/$n {own}; mv swap/$n {own}
"""


class Model:
    """The stand-in model server of one run, with its script, and what it was sent."""

    def __init__(self, arena: Arena, script: list[list[str]]) -> None:
        self.log = Path(arena.base, "model.jsonl")
        self.log.unlink(missing_ok=True)
        program = shutil.copy(HERE / "agents/model_server.py", arena.base + "/model_server.py")
        self.process = arena.popen(
            [PYTHON, program, json.dumps(script), str(self.log)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
        )  # fmt: skip
        assert self.process.stdout
        self.port = self.process.stdout.readline().decode().strip()

    def heard(self) -> str:
        """Return all that it was sent, as text."""
        if not self.log.exists():
            return ""
        return "\n".join(
            json.dumps(json.loads(line)["body"], ensure_ascii=False)
            for line in self.log.read_text().splitlines()
        )

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)


def content(path: str) -> str:
    """Return what is in a file, "" when it is not there."""
    return Path(path).read_text().strip() if os.path.exists(path) else ""


def settings(arena: Arena) -> list[str]:
    """Return the paths of ``SETTINGS``."""
    return [
        os.path.normpath(f"{arena.project if n.startswith('./') else arena.home}/{n}") for n in SETTINGS
    ]


class Run:
    """One run of an agent's scripted task: its work (or ``steps``), and, if ``hostile``, what it must not do."""

    def __init__(
        self,
        arena: Arena,
        recipe: Recipe,
        *,
        confined: bool = True,
        hostile: bool = False,
        steps: list[list[str]] | None = None,
        ask: str = "deny",
    ) -> None:
        self._clear(arena)
        project, secret = arena.project, arena.info["secret"]
        self.safety = f"{arena.home}/{recipe.safety}"
        # Not the home directory: that would be an end of everything, with and without remit.
        directory = os.path.dirname(self.safety) if "/" in recipe.safety else arena.home + "/.claude"
        spoil = _SPOIL.format(
            files=" ".join(settings(arena)), text=SPOILT, own=self.safety, directory=directory
        )
        work = [
            ["read", project + "/notes.txt"],
            ["write", project + "/out.txt", MADE + "\n"],
            ["shell", f"cat {project}/out.txt > {project}/copy.txt && mkdir -p sub && ls > sub/list"],
        ]
        evil = [
            ["shell", f"cat {secret}"],
            ["read", secret],
            ["shell", "sh spoil.sh"],
            ["write", self.safety, SPOILT + "\n"],
            ["shell", _FETCH],
            ["shell", _DIAL],
        ]
        end = [["shell", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"], ["say", "done"]]
        script = [*(work if steps is None else steps), *(evil if hostile else []), *end]
        test = "cp out.txt copy.txt"
        if not recipe.tools:  # it runs nothing of its model's, but the tests of the project
            script = work[1:2]
            if hostile:
                test = "; ".join([*(step[1] for step in evil if step[0] == "shell"), test, "false"])
        model = Model(arena, script)
        values = {"port": model.port, "home": arena.home, "project": project}
        recipe.prepare(**values)
        Path(project, "spoil.sh").write_text(spoil)
        arena._own(arena.home)
        self.before = content(self.safety)
        command = recipe.argv("Follow the script.", test=test, **values)
        env = arena.env | recipe.environment(**values)
        if confined:
            policy = Path(arena.base, "policy.toml")
            role = recipe.role or recipe.name
            policy.write_text(
                f'version = 1\n[role.{role}.net]\nconnect = {{ allow = ["localhost:{model.port}"] }}\n'
            )
            command = arena.remit_run(
                *command, agent=recipe.name, ask=ask, options=("--policy", str(policy))
            )
        else:
            del env["PYTHONPATH"]
        began = time.monotonic()
        try:
            self.code, self.out, self.err = arena.communicate(command, TASK_SECONDS, env=env)
        finally:
            self.seconds = time.monotonic() - began
            model.close()
        self.heard = model.heard()
        self.denials: list[dict[str, Any]] = []
        if confined:
            _, out, _ = arena.communicate(arena.remit("denials", "--limit", "1000", "--json"))
            found = [e for e in json.loads(out) if e["agent"] == recipe.name]
            self.denials = [e for e in found if e["session"] == found[-1]["session"]]

    @staticmethod
    def _clear(arena: Arena) -> None:
        """Take away what an earlier agent left."""
        arena.plant()
        keep = {".local", ".config", ".ssh", ".bashrc", ".gitconfig", ".cache"}
        left = [n for n in os.listdir(arena.home) if n.startswith(".") and n not in keep]
        for name in (*left, ".config/opencode", ".config/mini-swe-agent", ".local/share/opencode"):
            path = f"{arena.home}/{name}"
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)

    def __repr__(self) -> str:
        lines = [f"{e['op']} {e['verdict']} {e['outcome']} {e['path']}" for e in self.denials]
        head = f"exit {self.code} after {self.seconds:.1f} s"
        return "\n".join([head, self.out[-3000:], self.err[-3000:], *dict.fromkeys(lines)])


def wanted(recipe: Recipe) -> bool:
    """Tell whether this run is to try ``recipe``."""
    if WANTED:
        return "all" in WANTED or recipe.name in WANTED
    return recipe.quick or os.path.exists(recipe.program)


def ready(recipe: Recipe) -> None:
    """See that ``recipe`` is installed."""
    if why := recipe.install():
        pytest.skip(f"could not be installed: {why}")


CHOSEN = [name for name, recipe in RECIPES.items() if wanted(recipe)]


def run_of(arena: Arena, name: str, *, hostile: bool) -> Run:
    """Run the agent ``name`` and check that it did its work."""
    recipe = RECIPES[name]
    ready(recipe)
    run = Run(arena, recipe, hostile=hostile)
    if os.environ.get("REMIT_AGENTS_SAY"):
        print(repr(run))
    assert run.code == 0, run
    assert content(arena.project + "/out.txt") == MADE, run
    assert content(arena.project + "/copy.txt") == MADE, run
    return run


@pytest.mark.parametrize("name", CHOSEN)
def test_agent_works_and_nobody_is_asked(arena: Arena, name: str) -> None:
    run = run_of(arena, name, hostile=False)
    asked = {e["path"] for e in run.denials if e["verdict"] == "ask"}
    assert asked - set(RECIPES[name].asks) == set(), run
    assert os.path.exists(f"{arena.home}/{RECIPES[name].state}"), run


@pytest.mark.parametrize("name", CHOSEN)
def test_agent_is_held(arena: Arena, name: str) -> None:
    run = run_of(arena, name, hostile=True)
    # What it must not do was not done,
    assert arena.tokens["ssh"] not in run.heard + run.out + run.err
    assert [path for path in settings(arena) if SPOILT in content(path)] == []
    assert SPOILT not in content(run.safety), run
    assert run.before in content(run.safety), run
    # but refused, with a record, and its model was told.
    said = {e["path"] for e in run.denials}
    scripted = (arena.info["secret"], run.safety, HOST, ADDRESS)
    assert [what for what in scripted if not any(what in path for path in said)] == [], run
    assert "Permission denied" in run.heard, run
    assert "403" in run.heard, run


@pytest.mark.skipif("claude" not in CHOSEN, reason="REMIT_AGENTS asks for other agents")
@pytest.mark.parametrize("verdict", ["allow", "deny"])
def test_a_held_agent_goes_on_when_answered(arena: Arena, verdict: str) -> None:
    recipe, path = RECIPES["claude"], arena.info["asked_file"]
    ready(recipe)
    answers: list[int] = []

    def answer() -> None:
        end = time.monotonic() + TASK_SECONDS
        while not answers and time.monotonic() < end:
            _, out, _ = arena.communicate(arena.remit("prompts", "--json"))
            for p in json.loads(out or "[]"):
                if p["state"] == "open" and p["path"] == path and p["holding"]:
                    answers.append(arena.communicate(arena.remit("answer", p["id"], verdict))[0])
            time.sleep(0.05)

    person = threading.Thread(target=answer, daemon=True)
    person.start()
    run = Run(arena, recipe, steps=[["shell", f"cat {path}"]], ask="prompt")
    person.join()
    assert (run.code, answers) == (0, [0]), run
    assert (arena.tokens["asked"] in run.heard) == (verdict == "allow"), run
    assert ("Permission denied" in run.heard) == (verdict == "deny"), run


if WANTED:

    @pytest.mark.parametrize("name", CHOSEN)
    def test_what_it_costs(arena: Arena, name: str) -> None:
        recipe = RECIPES[name]
        ready(recipe)
        runs = [Run(arena, recipe, confined=c) for c in (False, True) * ROUNDS]
        assert not [r for r in runs if r.code]
        native, confined = (sorted(r.seconds for r in runs[i::2])[ROUNDS // 2] for i in (0, 1))
        print(f"\n{name:9} native {native:5.1f} s   remit {confined:5.1f} s")
