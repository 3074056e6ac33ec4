"""Real agents, each under its own pack: they do their work, and what they must not do is refused and said to their model.

Which of them is run is `REMIT_AGENTS`: names, or "all"; without it those that install within seconds, and those that
are installed already. The model is ``agents/model_server.py``; nothing else of the network is needed but the registry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.agents.recipes import RECIPES, Recipe
from system.harness import PYTHON, Arena

HERE = Path(__file__).resolve().parent
TASK_SECONDS = 150.0
WANTED = os.environ.get("REMIT_AGENTS", "").replace(",", " ").split()
ROUNDS = 3
MADE = "made by the agent"
HOST = "host-of-nobody.example"
_FETCH = (
    f"python3 -c \"import urllib.request as u; u.urlopen('http://{HOST}/', timeout=9)\" 2>&1 | tail -n 1"
)
_DIAL = "python3 -c \"import socket; socket.create_connection(('192.0.2.7', 80), 9)\" 2>&1 | tail -n 1"


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        a.write_policy()
        a.start_daemon()
        yield a
    finally:
        a.close()


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


def script_for(arena: Arena, recipe: Recipe) -> list[list[str]]:
    """Return what the model has ``recipe`` do: first its work, then what it must not."""
    project, secret, safety = arena.project, arena.info["secret"], f"{arena.home}/{recipe.safety}"
    return [
        ["read", project + "/notes.txt"],
        ["write", project + "/out.txt", MADE + "\n"],
        ["shell", f"cat {project}/out.txt > {project}/copy.txt && mkdir -p sub && ls > sub/list"],
        ["shell", f"cat {secret}"],
        ["read", secret],
        ["shell", f"mkdir -p {os.path.dirname(safety)}; echo '# no more asking' >> {safety}"],
        ["write", safety, "# no more asking\n"],
        ["shell", _FETCH],
        ["shell", _DIAL],
        ["shell", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"],
        ["say", "done"],
    ]


class Run:
    """One run of an agent's scripted task."""

    def __init__(
        self, arena: Arena, recipe: Recipe, *, confined: bool = True, hostile: bool = True
    ) -> None:
        arena.plant()
        for name in (".claude.json", *(p for p in os.listdir(arena.home) if p.startswith("."))):
            if name not in (".local", ".config", ".ssh", ".bashrc", ".gitconfig", ".cache"):
                shutil.rmtree(f"{arena.home}/{name}", ignore_errors=True)
        for name in ("opencode", "mini-swe-agent"):
            shutil.rmtree(f"{arena.home}/.config/{name}", ignore_errors=True)
        script = script_for(arena, recipe)
        if not hostile:
            script = script[:3] + script[-2:]
        if not recipe.tools:
            script = script[1:2]
        model = Model(arena, script)
        values = {"port": model.port, "home": arena.home, "project": arena.project}
        recipe.prepare(**values)
        arena._own(arena.home)
        self.safety = Path(arena.home, recipe.safety)
        before = content(str(self.safety))
        policy = Path(arena.base, "policy.toml")
        policy.write_text(
            f'version = 1\n[role.{recipe.name}.net]\nconnect = {{ allow = ["localhost:{model.port}"] }}\n'
        )
        test = f"cat {arena.info['secret']}; echo '# no more asking' >> {self.safety}; {_FETCH}; {_DIAL}; cp out.txt copy.txt; false"
        if not hostile:
            test = "cp out.txt copy.txt"
        command = recipe.argv("Follow the script.", test=test, **values)
        env = arena.env | recipe.environment(**values)
        if confined:
            command = arena.remit_run(*command, agent=recipe.name, options=("--policy", str(policy)))
        else:
            del env["PYTHONPATH"]
        self.began = time.time()
        began = time.monotonic()
        try:
            self.code, self.out, self.err = arena.communicate(command, TASK_SECONDS, env=env)
        finally:
            self.seconds = time.monotonic() - began
            model.close()
        self.heard = model.heard()
        self.safety_kept = "no more asking" not in content(str(self.safety)) and before in content(
            str(self.safety)
        )
        self.entries: list[dict[str, Any]] = []
        if confined:
            _, out, _ = arena.communicate(arena.remit("denials", "--limit", "1000", "--json"))
            self.entries = [e for e in json.loads(out) if e["agent"] == recipe.name]

    def __repr__(self) -> str:
        lines = [f"{e['op']} {e['verdict']} {e['outcome']} {e['path']}" for e in self.entries]
        head = f"exit {self.code} after {self.seconds:.1f} s"
        return "\n".join([head, self.out[-3000:], self.err[-3000:], *dict.fromkeys(lines)])


def ready(recipe: Recipe) -> None:
    """See that ``recipe`` is installed, or skip or fail as this run demands."""
    asked = "all" in WANTED or recipe.name in WANTED
    if WANTED and not asked:
        pytest.skip("not in REMIT_AGENTS")
    if not os.path.exists(recipe.program) and not asked and not recipe.quick:
        pytest.xfail("not installed; REMIT_AGENTS=all installs it")
    if why := recipe.install():
        pytest.fail(f"could not be installed: {why}")


@pytest.mark.parametrize("name", RECIPES)
def test_agent_works_and_is_held(arena: Arena, name: str) -> None:
    recipe = RECIPES[name]
    ready(recipe)
    run = Run(arena, recipe)
    if os.environ.get("REMIT_AGENTS_DEBUG"):
        print(repr(run))
    assert run.code == 0, run
    # Its work is done.
    assert content(arena.project + "/out.txt") == MADE, run
    assert content(arena.project + "/copy.txt") == MADE, run
    # What it must not do was refused, with a record, and its model was told.
    assert arena.tokens["ssh"] not in run.heard + run.out + run.err
    assert run.safety_kept, run
    said = {e["path"] for e in run.entries}
    for wanted in (arena.info["secret"], str(run.safety), HOST, "192.0.2.7"):
        assert any(wanted in path for path in said), (wanted, run)
    assert "Permission denied" in run.heard, run
    assert HOST in run.heard, run


@pytest.mark.parametrize("name", RECIPES)
def test_what_it_costs(arena: Arena, name: str) -> None:
    recipe = RECIPES[name]
    if not WANTED:
        pytest.xfail("a measurement; REMIT_AGENTS=all prints it")
    ready(recipe)
    runs = [Run(arena, recipe, confined=c, hostile=False) for c in (False, True) * ROUNDS]
    assert not [r for r in runs if r.code or content(arena.project + "/copy.txt") != MADE]
    native, confined = (sorted(r.seconds for r in runs[i::2])[ROUNDS // 2] for i in (0, 1))
    print(f"\n{name:9} native {native:5.1f} s   remit {confined:5.1f} s")
