"""What the argument of ``remit who`` means: a process, a bus name, a commit, or a path."""

from __future__ import annotations

import os
import re
from typing import Any

_ID = re.compile(r"[0-9a-fA-F]{7,64}")  # git shows no fewer digits; 64 are a whole SHA-256


def subject_of(text: str) -> dict[str, Any]:
    """Return the parameters of the wire's ``who`` for ``text``; what exists as a file is a path.

    A number is a process, ``REPOSITORY@REVISION`` or an id a commit. Raises ValueError when the repository knows no such commit.
    """
    if os.path.lexists(text):
        return _path(text)
    if text.isascii() and text.isdigit() and len(text) < 20:
        return {"pid": int(text)}
    if _ID.fullmatch(text):
        return {"commit": text}
    repository, at, revision = text.partition("@")
    if at and revision and os.path.isdir(repository or "."):
        return {"commit": _commit(repository or ".", revision)}
    if (text.startswith(":") or text.count(".") > 1) and "/" not in text:
        return {"name": text}
    return _path(text)


def title(text: str, asked: dict[str, Any]) -> str:
    """Return ``text`` as an answer about ``asked`` names it: a process with its name and start, for display alone."""
    if "pid" not in asked:
        return text
    import psutil

    from remit_daemon.wire.words import moment_text

    try:
        process = psutil.Process(asked["pid"])
        return f"{text} ({process.name()}, started {moment_text(process.create_time())})"
    except psutil.Error:
        return text


def _path(text: str) -> dict[str, Any]:
    where = os.path.abspath(text)
    return {"path": os.path.join(os.path.realpath(os.path.dirname(where)), os.path.basename(where))}


def _commit(repository: str, revision: str) -> str:
    import subprocess  # here alone: every command of the command line imports this module

    argv = [
        "git",
        "-C",
        repository,
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        revision + "^{commit}",
    ]
    try:
        got = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ValueError("git is not installed; give the commit's id") from None
    id = got.stdout.strip()
    if got.returncode or not _ID.fullmatch(id):
        raise ValueError(f"{repository} has no commit {revision}")
    return id
