"""The worlds of ``decisions``: policy files of each layer, made into a snapshot as a session's would be."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from remit_policy.layers import PolicySet, packs
from remit_policy.match import escape
from remit_policy.model import ADMIN, GRANT, GUARD, USER, VERDICTS, Rule, Snapshot, dumps, loads
from remit_policy.reading import read_document

HERE = Path(__file__).parent / "decisions"
HOME, PROJECT = "/home/ada", "/home/ada/src/engine"
VARIABLES = {
    "HOME": HOME,
    "PROJECT": PROJECT,
    "TMPDIR": "/tmp/remit-1",
    "XDG_CONFIG_HOME": HOME + "/.config",
    "XDG_STATE_HOME": HOME + "/.local/state",
    "XDG_DATA_HOME": HOME + "/.local/share",
    "XDG_CACHE_HOME": HOME + "/.cache",
    "XDG_RUNTIME_DIR": "/run/user/1000",
}


def worlds(*files: str) -> list[Any]:
    """Return the worlds of the files in ``decisions``, each as a test parameter's value."""
    out = []
    for file in files:
        out += tomllib.loads((HERE / f"{file}.toml").read_text(encoding="utf-8"))["world"]
    return out


def real(path: str) -> str:
    """Return ``path`` with its variable put in."""
    head, slash, tail = path.partition("/")
    return (
        (HOME if head == "~" else VARIABLES.get(head[1:], head) if head[:1] == "$" else head) + slash + tail
    )


def lines(text: str) -> list[list[str]]:
    """Return the words of each line."""
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def snapshot(world: dict[str, Any], tmp_path: Path) -> Snapshot:
    """Return the snapshot of ``world``, written and read as it goes to a supervisor."""
    sources = packs() if world.get("packs") else []
    for name, layer in (("admin", ADMIN), ("user", USER)):
        if name in world:
            text = "version = 1\n" + world[name]
            sources.append((layer, read_document(f"{name}.toml", text.encode())))
    project = None
    if "project" in world:
        project = tmp_path / "project.toml"
        project.write_text("version = 1\n" + world["project"], encoding="utf-8")
    made = PolicySet(sources).snapshot(
        world.get("agent", "x"),
        "",
        "",
        {**VARIABLES, "PROJECT": world.get("project_dir", PROJECT)},
        project_file=str(project) if project else None,
        grants=_rules(GRANT, world.get("grants", "")),
        guard=_rules(GUARD, world.get("guard", "")),
    )
    return loads(dumps(made))


def _rules(layer: int, text: str) -> list[Rule]:
    out = []
    for verdict, op, pattern in lines(text):
        head, tail = (pattern[:-3], "/**") if pattern.endswith("/**") else (pattern, "")
        out.append(Rule(layer, VERDICTS.index(verdict), op, escape(real(head)) + tail, source="test:1"))
    return out
