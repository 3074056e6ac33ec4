"""The ``remit`` and ``remitd`` commands: look at the first word, import what serves it."""

from __future__ import annotations

import os
import sys

USAGE = """usage: remit COMMAND [ARGUMENT]...

  run -- COMMAND             start an agent under policy (`remit run --help`)
  tui                        prompts, sessions, grants, ledger on one screen
  prompts [--watch], answer  what waits for you, and your answer to it
  quiet TIME|off             hold or deny prompts for a while, call nobody
  status, sessions           what runs; session show ID: what one did
  stop, pause, resume ID     end, halt or continue a session
  log, who PATH|PID|COMMIT   what was done, and by whom; log verify, log export
  denials                    what was refused, and why; agents may call it too
  grants, revoke ID          what you allowed for longer than once
  review, grant              go through it; narrow, extend or keep one
  learn SESSION              rules from what `run --learn` let through
  limits                     what agents have spent of their limits
  policy check|why|show|...  find mistakes in policy, explain a decision
  trust [DIR]                accept a project's own policy, as it is now
  agent list|show, adopt     agents by name; call a running process one's
  token, key                 capability tokens; keys for programs outside
  hook claude|codex|gemini   answer that agent's hook before a tool call
  doctor                     what this kernel enforces, by trying it
  daemon, reload             remitd in the foreground; read policy files anew

`remit COMMAND --help` says more; all but run and tui take --json."""


_HERE = (
    "run",
    "policy",
    "log",
    "who",
    "trust",
    "agent",
)  # they take paths, or a project, from where they are


def main() -> int:
    """Run the command line; returns the exit status."""
    args = sys.argv[1:]
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        from remit_daemon.wire.words import VERSION

        print(f"remit {VERSION}")
        return 0
    name, rest = args[0], args[1:]
    if name in _HERE and not _somewhere():
        sys.stderr.write("remit: the current directory is no longer there; change into one that is\n")
        return 125 if name == "run" else 2
    if name == "run":
        return _run(rest)
    try:
        return _other(name, rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def _somewhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _run(args: list[str]) -> int:
    from remit_daemon.kernel.syscalls import UnsupportedMachine
    from remit_daemon.peers import mark

    if mark.inside():
        from remit_daemon.cli import delegate_cmd

        return delegate_cmd.run(args)

    try:
        from remit_daemon.supervisor import run, upcall
    except UnsupportedMachine as e:
        sys.stderr.write(f"remit: {e}\n")
        return 125

    def start_daemon() -> None:
        from remit_daemon.cli import client

        try:
            client.start_daemon()
        except client.NoDaemon as e:
            raise upcall.Unreachable(str(e)) from None

    return run.main(args, start_daemon)


def _closed_inside(name: str, args: list[str]) -> bool:
    """Say whether this command is the person's alone: what it is about is closed to sessions, or is another there."""
    if name == "policy":  # files of the agent's own it may check, and see their form
        return args[:1] in (["why"], ["show"], ["test"], ["hits"], ["diff"]) or args == ["check"]
    return name not in ("token", "hook", "denials") and "--help" not in args


def _other(name: str, args: list[str]) -> int:
    json_out = "--json" in args
    args = [a for a in args if a != "--json"]
    if _closed_inside(name, args):
        from remit_daemon.peers import mark

        if mark.tag_of(os.getpid()):
            sys.stderr.write(
                f"remit {name}: not from inside a session; `remit denials` says what was refused\n"
            )
            return 2 if name == "policy" else 3
    if name == "daemon":
        return remitd(args)
    if name == "tui":
        if args:
            asked = args in (["-h"], ["--help"])
            (sys.stdout if asked else sys.stderr).write(
                "usage: remit tui\n\nPrompts, sessions, grants, the ledger, policy and agents on one screen; ? shows the keys.\n"
            )
            return 0 if asked else 2
        from remit_daemon.cli import client
        from remit_daemon.wire.paths import PathsError
        from remit_tui.app import main as tui

        try:
            client.start_daemon()
        except (client.NoDaemon, PathsError) as e:
            return client.failed("tui", e, json_out=json_out)
        return tui()
    if name == "policy":
        from remit_daemon.cli import policy_cmd

        return policy_cmd.run(args, json_out=json_out)
    if name == "token":
        from remit_daemon.cli import token_cmd

        return token_cmd.run(args, json_out=json_out)
    if name == "hook":
        from remit_daemon.cli import hook_cmd

        return hook_cmd.run(args, json_out=json_out)
    if name in ("agent", "adopt"):
        from remit_daemon.cli import agent_cmd

        return agent_cmd.run(name, args, json_out=json_out)
    if name == "key":
        from remit_daemon.cli import key_cmd

        return key_cmd.run(args, json_out=json_out)
    if name == "doctor":
        from remit_daemon.cli import doctor_cmd

        return doctor_cmd.run(args, json_out=json_out)
    from remit_daemon.cli import commands

    if name not in commands.COMMANDS:
        sys.stderr.write(f"remit: unknown command {name!r}; `remit --help` lists them\n")
        return 2
    return commands.run(name, args, json_out)


def remitd(args: list[str] | None = None) -> int:
    """Run the daemon in the foreground; returns the exit status."""
    from remit_daemon.runtime.program import main as daemon

    return daemon(sys.argv[1:] if args is None else args)


if __name__ == "__main__":
    sys.exit(main())
