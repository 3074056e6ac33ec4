"""Real agents: how each is installed, set up for a stand-in model server, and given a task.

An agent is installed once, into a directory of its own below ``cache()``; nothing of it lies in the home directory that
it runs with. ``{port}`` is the stand-in's, ``{home}`` and ``{project}`` the arena's, in every text here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

INSTALL_SECONDS = 600
URL = "http://127.0.0.1:{port}"
KEY = "sk-stand-in"  # of no value anywhere
_OPENAI = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": URL + "/v1", "OPENAI_API_BASE": URL + "/v1"}


@dataclass(frozen=True)
class Recipe:
    """One agent. ``command`` is its program and arguments, ``{task}`` among them."""

    name: str
    package: str  # npm's, or PyPI's where it begins with "pypi:"
    command: list[str]
    env: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)  # path below HOME → content, before it starts
    state: str = ""  # what, below HOME, is there after a run
    safety: str = ""  # a file, below HOME, that switches its own safety off
    tools: bool = True  # it lets a model call tools
    quick: bool = False  # so small that every run of the suite can install it
    asks: tuple[
        str, ...
    ] = ()  # what it asks for of its own accord, which nobody but the person should answer
    role: str = ""  # where it is not its name
    of: str = ""  # the recipe whose program this is

    @property
    def prefix(self) -> str:
        return f"{cache()}/{self.of or self.name}"

    @property
    def program(self) -> str:
        return f"{self.prefix}/bin/{self.command[0]}"

    def argv(self, task: str, **values: str) -> list[str]:
        """Return the command line for ``task``."""
        return [self.program, *(fill(word, task=task, **values) for word in self.command[1:])]

    def environment(self, **values: str) -> dict[str, str]:
        return {name: fill(text, **values) for name, text in self.env.items()}

    def prepare(self, home: str, **values: str) -> None:
        """Write its files into ``home``."""
        for name, text in self.files.items():
            path = Path(home, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fill(text, home=home, **values))

    def install(self) -> str:
        """Install it unless it is there; returns why it could not be, "" when it is."""
        if os.path.exists(self.program):
            return ""
        package = self.package.removeprefix("pypi:")
        if package != self.package:
            steps = [
                [sys.executable, "-m", "venv", self.prefix],
                [self.prefix + "/bin/python", "-m", "pip", "install", "-q", package],
            ]
        elif shutil.which("npm"):
            # Some npm run an install script only when told to; older ones do not know the option and only warn.
            base = ["npm", "install", "--global", "--no-fund", "--no-audit", f"--prefix={self.prefix}"]
            steps = [[*base, f"--allow-scripts={package}", package]]
        else:
            return "npm is not installed"
        for step in steps:
            try:
                done = subprocess.run(
                    step, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                return f"{step[0]} was not done after {INSTALL_SECONDS} s"
            if done.returncode:
                return f"{' '.join(step)}: {done.stderr[-1000:]}"
        return "" if os.path.exists(self.program) else f"{package} brings no {self.command[0]}"


def cache() -> str:
    """Return the directory that holds the installed agents."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("REMIT_AGENTS_DIR") or base + "/remit-agents"


def fill(text: str, **values: str) -> str:
    """Return ``text`` with ``{name}`` replaced; other braces stay."""
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


_CODEX = f"""model = "stand-in"
model_provider = "local"
[model_providers.local]
name = "local"
base_url = "{URL}/v1"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
"""
_OPENCODE = {
    "$schema": "https://opencode.ai/config.json",
    "model": "local/stand-in",
    "permission": "allow",
    "provider": {
        "local": {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": URL + "/v1", "apiKey": KEY},
            "models": {"stand-in": {"name": "stand-in"}},
        }
    },
}

RECIPES = {
    r.name: r
    for r in (
        Recipe(
            "claude", "@anthropic-ai/claude-code",
            ["claude", "-p", "{task}", "--dangerously-skip-permissions"],
            {"ANTHROPIC_BASE_URL": URL, "ANTHROPIC_API_KEY": KEY},
            state=".claude.json",
            safety=".claude/settings.json",
            quick=True,
        ),
        Recipe(
            "codex", "@openai/codex",
            ["codex", "exec", "--skip-git-repo-check", "{task}"],
            {"OPENAI_API_KEY": KEY},
            {".codex/config.toml": _CODEX},
            state=".codex/sessions",
            safety=".codex/config.toml",
            quick=True,
            asks=("github.com:443", "api.github.com:443"),  # its list of plugins
        ),
        Recipe(
            # An agent that no pack knows, with its state in the project: here codex, which is told by hand.
            "unknown", "@openai/codex",
            ["codex", "exec", "--skip-git-repo-check", "-s", "danger-full-access", "{task}"],
            {"OPENAI_API_KEY": KEY, "CODEX_HOME": "{project}/state"},
            {"project/state/config.toml": _CODEX},
            state="project/state/sessions",
            safety=".config/autostart/unknown.desktop",
            quick=True,
            asks=("github.com:443", "api.github.com:443", "chatgpt.com:443", "ab.chatgpt.com:443"),
            role="default",
            of="codex",
        ),
        Recipe(
            "gemini", "@google/gemini-cli",
            ["gemini", "-p", "{task}", "--yolo", "-m", "gemini-2.5-pro"],
            {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": URL, "GEMINI_CLI_TRUST_WORKSPACE": "true"},
            {".gemini/settings.json": json.dumps({"security": {"auth": {"selectedType": "gemini-api-key"}}})},
            state=".gemini/tmp",
            safety=".gemini/settings.json",
        ),
        Recipe(
            "qwen", "@qwen-code/qwen-code",
            ["qwen", "-p", "{task}", "--yolo", "--auth-type", "openai"],
            _OPENAI | {"OPENAI_MODEL": "stand-in"},
            state=".qwen/projects",
            safety=".qwen/settings.json",
        ),
        Recipe(
            "opencode", "opencode-ai",
            ["opencode", "run", "{task}"],
            {"OPENCODE_DISABLE_AUTOUPDATE": "1"},
            {".config/opencode/opencode.json": json.dumps(_OPENCODE)},
            state=".local/share/opencode",
            safety=".config/opencode/opencode.json",
        ),
        Recipe(
            "mini", "pypi:mini-swe-agent",
            ["mini", "-y", "-t", "{task}", "-m", "openai/stand-in", "-o", "traj.json", "--exit-immediately"],
            _OPENAI | {"MSWEA_CONFIGURED": "true", "MSWEA_COST_TRACKING": "ignore_errors"},
            state="project/traj.json",
            safety=".config/mini-swe-agent/.env",
        ),
        Recipe(
            "aider", "pypi:aider-chat",
            [
                "aider", "--yes-always", "--no-check-update", "--no-show-model-warnings", "--no-stream",
                "--model", "openai/stand-in", "--edit-format", "whole", "--auto-test", "--test-cmd", "{test}",
                "--message", "{task}", "out.txt",
            ],
            _OPENAI | {"AIDER_ANALYTICS": "false"},
            state="project/.aider.chat.history.md",
            safety=".aider.conf.yml",
            tools=False,
        ),
    )
}  # fmt: skip
