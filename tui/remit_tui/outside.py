"""Programs that the TUI starts: remit's own commands, which read policy files and the ledger, and the person's editor.

They run as the person, with arguments that are never a shell's; what they print is a stranger's text to us.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from remit_daemon.wire.escape import escape

SECONDS = 20.0  # for a command that reads files; an export of a large ledger is given none
MOST = 8 << 20  # bytes of output that are read


class OutsideError(Exception):
    """A command could not be run or came to nothing; the text says why."""


def words(*args: str) -> list[str]:
    """Return the command line of ``remit ARGS``, in the interpreter that runs this."""
    return [sys.executable, "-m", "remit_daemon.cli.main", *args]


async def remit(*args: str, seconds: float | None = SECONDS) -> tuple[int, str, str]:
    """Run ``remit ARGS``; return its exit status, what it printed and what it complained of. Raises OutsideError."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words(*args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            limit=MOST,
        )
    except OSError as e:
        raise OutsideError(f"remit cannot be started: {e.strerror}") from None
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise OutsideError(f"remit {args[0]} was not done after {seconds:g} s") from None
    except asyncio.CancelledError:
        process.kill()
        raise
    return process.returncode or 0, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


async def remit_json(*args: str) -> Any:
    """Run ``remit ARGS --json`` and return what it says. Raises OutsideError."""
    _, out, err = await remit(*args, "--json")
    try:
        return json.loads(out)
    except ValueError:
        raise OutsideError(err.strip() or f"remit {args[0]} said nothing") from None


async def export(path: str, wanted: dict[str, Any]) -> None:
    """Write the ledger's rows that ``wanted`` (as the wire's Filter) selects to the new file ``path``, as JSON lines.

    Raises OutsideError; an unfinished file is removed.
    """
    try:
        out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise OutsideError(f"cannot write {path}: {e.strerror}") from None
    args = ["log", "export", "--format", "ocsf" if path.endswith(".ocsf") else "jsonl"]
    for name, value in wanted.items():
        args += [f"--{name}"] if value is True else [f"--{name}={value}"]
    done = False
    try:
        process = await asyncio.create_subprocess_exec(
            *words(*args), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE
        )
        _, err = await process.communicate()
        done = process.returncode == 0
        if not done:
            raise OutsideError(err.decode("utf-8", "replace").strip() or "remit log export failed")
    except OSError as e:
        raise OutsideError(f"remit cannot be started: {e.strerror}") from None
    finally:
        os.close(out)
        if not done:
            os.unlink(path)


def editor() -> list[str]:
    """Return the person's editor as a command line. Raises OutsideError when none is named and there is no vi."""
    try:
        command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    except ValueError:
        raise OutsideError("$EDITOR cannot be read: a quotation mark is not closed") from None
    if not command:
        raise OutsideError("no editor; set $EDITOR")
    return command


def policy_dir() -> str:
    """Return where the user's own policy files are."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{config}/remit/policy.d"


def draft(text: str, beside: str) -> str:
    """Return a new private file of the same name with ``text``, to be edited and checked before it becomes ``beside``.

    It is in a directory of its own, from where it can be moved into place, but outside a policy.d, which remitd watches.
    Raises OutsideError.
    """
    folder = os.path.dirname(beside)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        if os.path.basename(folder) == "policy.d":
            folder = os.path.dirname(folder)
        path = os.path.join(tempfile.mkdtemp(prefix=".draft-", dir=folder), os.path.basename(beside))
        with open(path, "x", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError as e:
        raise OutsideError(f"cannot write beside {beside}: {e.strerror}") from None
    return path


def discard(path: str) -> None:
    """Remove what is left of the draft ``path``, and its directory."""
    shutil.rmtree(os.path.dirname(path), ignore_errors=True)


async def differences(path: str, policy: str) -> tuple[str, ...]:
    """Return what the user's policy file ``policy`` decides otherwise with the draft ``path`` in its place, as ``remit policy diff``
    says it, line by line. Raises OutsideError."""
    code, out, err = await remit("policy", "diff", path)
    if code not in (0, 1):
        raise OutsideError(err.replace(path, policy).strip() or "remit policy diff failed")
    return lines(out.replace(path, policy))


def lines(text: str) -> tuple[str, ...]:
    """Return the lines of what a command of remit's printed, fit to be shown. It has escaped names already; nothing relies on it."""
    return tuple("".join(c if c.isprintable() else escape(c) for c in x) for x in text.rstrip().split("\n"))
