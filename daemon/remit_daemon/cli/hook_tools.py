"""From an agent's tool call to what it would do: operations and resources, as far as the call says. Pure.

    claude   PreToolUse: {tool_name, tool_input, cwd}   Read Edit MultiEdit Write NotebookEdit LS Glob Grep Bash WebFetch
    codex    PreToolUse: the same shape                 Bash apply_patch
    gemini   BeforeTool: the same names of fields       read_file write_file replace list_directory glob
                                                        search_file_content grep_search run_shell_command

(code.claude.com/docs/en/hooks; openai/codex codex-rs/hooks; geminicli.com/docs/hooks/reference; tried with the versions of the README.) A tool
that is not here is none that we have an opinion of.
"""

from __future__ import annotations

import os
import shlex
import shutil
from typing import Any, NamedTuple
from urllib.parse import urlsplit

MAX_PURPOSE = 500  # characters that remitd takes; what is longer is cut here, marked
_SHELL = set(
    "|&;<>()$`\\\"'\n*?[]{}~#!="
)  # with one of these a command is more than a program and its arguments
_PATCH = {
    "*** Update File: ": "write",
    "*** Add File: ": "create",
    "*** Delete File: ": "delete",
    "*** Move to: ": "create",
}
_FILES = {
    "Read": ("file_path", "read"), "Edit": ("file_path", "write"), "MultiEdit": ("file_path", "write"),
    "Write": ("file_path", "write"), "NotebookEdit": ("notebook_path", "write"), "LS": ("path", "list"),
    "Glob": ("path", "list"), "Grep": ("path", "read"), "read_file": ("file_path", "read"),
    "write_file": ("file_path", "write"), "replace": ("file_path", "write"), "list_directory": ("dir_path", "list"),
    "glob": ("dir_path", "list"), "search_file_content": ("dir_path", "read"), "grep_search": ("dir_path", "read"),
}  # fmt: skip
_OTHER_NAMES = ("file_path", "absolute_path", "path", "dir_path")  # of the same field in other versions
_COMMANDS = ("Bash", "run_shell_command", "shell")


class Act(NamedTuple):
    """One thing that the call would do."""

    op: str
    resource: str
    argv: tuple[str, ...] = ()


class Wish(NamedTuple):
    """What a tool call would do. ``known``: whether ``acts`` is all of it; ``command``: it runs one, which may do more yet."""

    acts: tuple[Act, ...]
    purpose: str
    known: bool
    command: bool = False


NOTHING = Wish((), "", False)


def wish(event: dict[str, Any]) -> Wish:
    """Return what the tool call of a hook's ``event`` would do; NOTHING where we know nothing of it."""
    tool, given, cwd = event.get("tool_name"), event.get("tool_input"), event.get("cwd")
    if not isinstance(tool, str) or not isinstance(given, dict):
        return NOTHING
    cwd = cwd if isinstance(cwd, str) and cwd.startswith("/") else os.getcwd()
    purpose = _purpose(given.get("description"))
    if tool in _COMMANDS:
        return _command(given.get("command"), cwd, purpose)
    if tool == "apply_patch":
        return _patch(given.get("command") or given.get("input") or given.get("patch"), cwd, purpose)
    if tool == "WebFetch":
        return _fetch(given.get("url"), purpose or _purpose(given.get("prompt")))
    if tool not in _FILES:
        return NOTHING
    field, op = _FILES[tool]
    path = next(
        (given[n] for n in (field, *_OTHER_NAMES) if isinstance(given.get(n), str) and given[n]), ""
    )
    if not path:
        if op in ("write",) or tool in ("Read", "read_file"):
            return NOTHING
        path = cwd  # a search without a place is here
    where = _absolute(path, cwd)
    if op == "write" and not os.path.lexists(where):
        op = "create"
    if tool in ("Grep", "search_file_content", "grep_search") and os.path.isdir(where):
        return Wish((Act("list", where),), purpose, known=False)  # which files it reads is not in the call
    return Wish((Act(op, where),), purpose, known=True)


def _command(text: Any, cwd: str, purpose: str) -> Wish:
    if isinstance(text, list) and text and all(isinstance(w, str) for w in text):
        words = list(text)
    elif isinstance(text, str) and text.strip() and not _SHELL & set(text):
        words = shlex.split(text)
    else:
        return Wish((), purpose, known=False, command=True)
    program = os.path.join(cwd, words[0]) if "/" in words[0] else shutil.which(words[0])
    if not program:  # a shell's own word, or nothing at all
        return Wish((), purpose, known=False, command=True)
    return Wish((Act("exec", os.path.realpath(program), tuple(words)),), purpose, known=True, command=True)


def _patch(text: Any, cwd: str, purpose: str) -> Wish:
    if not isinstance(text, str):
        return NOTHING
    acts = [
        Act(op, _absolute(line[len(start) :].strip(), cwd))
        for line in text.splitlines()
        for start, op in _PATCH.items()
        if line.startswith(start)
    ]
    return Wish(tuple(dict.fromkeys(acts)), purpose, known=bool(acts))


def _fetch(url: Any, purpose: str) -> Wish:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return NOTHING
    if not parts.hostname or not port:
        return NOTHING
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Wish((Act("connect", f"{host}:{port}"),), purpose, known=True)


def _absolute(path: str, cwd: str) -> str:
    return str(os.path.normpath(os.path.join(cwd, os.path.expanduser(path))))


def _purpose(given: Any) -> str:
    text = given.strip() if isinstance(given, str) else ""
    return text if len(text) <= MAX_PURPOSE else text[: MAX_PURPOSE - 1] + "…"
