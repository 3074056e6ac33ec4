"""``remit run`` inside a session: this process becomes a sub-session of it and executes the command.

There is no other supervisor and no other filter: the one that is there is told, and knows the process from then on by its mark. What
has to be read is read before. A Landlock domain of its own keeps the command from signals to the session above; everything
else is the supervisor's to decide.
"""

from __future__ import annotations

import os
import socket
import sys

from remit_daemon.cli.client import Client, NoDaemon, RpcError
from remit_daemon.kernel import landlock
from remit_daemon.supervisor import launch
from remit_daemon.supervisor.run import HELP, HelpAsked, UsageError, parse
from remit_daemon.wire.control import CLAIM
from remit_daemon.wire.rpc import INVALID_PARAMS, MAX_SUB_POLICY

USAGE = "usage, inside a session: remit run [--agent NAME] [--policy FILE] -- COMMAND [ARGUMENT]..."
_REFUSED = 1


def run(args: list[str]) -> int:
    """Run ``remit run`` with ``args`` inside a session. Returns an exit status only when nothing was executed (1, 2, 3, 125 to 127)."""
    try:
        options = parse(args)
        if options.project or options.ask != "prompt" or options.hold:
            raise UsageError("--project, --ask and --hold are those of the session")
        if len(options.policy) > 1:
            raise UsageError("one --policy only")
        policy = _read(options.policy[0]) if options.policy else ""
        program = launch.find_program(options.command[0], os.environ.get("PATH", os.defpath))
    except HelpAsked:
        sys.stdout.write(HELP)
        return 0
    except UsageError as e:
        return _fail(f"{e}\n{USAGE}", 2)
    except launch.LaunchError as e:
        return _fail(str(e), e.code)
    asked = {"agent": options.agent, "argv": options.command, "policy": policy}
    try:
        client = Client(os.environ.get("REMIT_SOCKET", ""))
        try:
            given = client.call("delegate", asked)
        finally:
            client.close()
    except RpcError as e:
        return _fail(str(e), 2 if e.code == INVALID_PARAMS else _REFUSED)
    except NoDaemon as e:
        return _fail(str(e), 3)
    try:
        own = landlock.Ruleset(0, 0, landlock.ALL_SCOPED)
        own.restrict_self()
        own.close()
        _claim(str(given["ticket"]))
    except (landlock.LandlockError, OSError) as e:
        return _fail(f"the sub-session cannot begin: {e}", 125)
    try:
        os.execve(program, options.command, os.environ | given["env"])  # noqa: S606 - what was asked for
    except OSError as e:
        return _fail(
            f"cannot run {program}: {(e.strerror or str(e)).lower()}", 127 if e.errno == 2 else 126
        )


def _claim(ticket: str) -> None:
    """Have the supervisor put this process into the sub-session. Raises OSError; it then is where it was."""
    with socket.socket(socket.AF_UNIX) as claim:
        claim.connect(CLAIM + ticket.encode())


def _read(path: str) -> str:
    try:
        with open(path, "rb") as f:
            raw = f.read(MAX_SUB_POLICY + 1)
    except OSError as e:
        raise UsageError(f"--policy {path}: {(e.strerror or str(e)).lower()}") from None
    if len(raw) > MAX_SUB_POLICY:
        raise UsageError(f"--policy {path}: longer than {MAX_SUB_POLICY} bytes")
    return raw.decode("utf-8", "surrogateescape")


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"remit: {text}\n")
    return code
