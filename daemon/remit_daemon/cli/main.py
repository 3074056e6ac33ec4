"""The ``remit`` and ``remitd`` commands: look at the first word, import what serves it."""

from __future__ import annotations

import os
import sys

USAGE = """usage: remit COMMAND [ARGUMENT]...

  run -- COMMAND        run an agent under policy          doctor     what this kernel enforces, by trying it
  prompts [--watch]     what waits for your answer         answer     answer one
  status, sessions      what runs                          stop, pause, resume ID
  session show ID       what it did
  log, log verify       what was done, and by whom         who        who did this: PATH, PID, COMMIT
  denials               what was refused                   grants, revoke   what you allowed for longer
  review, grant         go through it, narrow, extend      quiet      for a while: deny or hold what would be asked
  learn SESSION         rules from what `run --learn` let through
  limits                what agents have spent of their limits
  policy                check, why, test, show,…  trust      take a project's own policy into account
  tui                   everything on one screen           daemon     remitd, in the foreground
  agent                 list, show, register, update, forget       adopt   call a running process an agent's
  token                 issue, request, exchange,        key        create, list, review, revoke: for programs
                        introspect, revoke, list, scopes            that nobody can approve each time
  hook claude|codex|gemini   answer that agent's hook before a tool call

`remit COMMAND --help` says more; every command takes --json."""


def main() -> int:
    """Run the command line; returns the exit status."""
    args = sys.argv[1:]
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if args else 2
    name, rest = args[0], args[1:]
    if name == "run":
        return _run(rest)
    if name == "daemon":
        return remitd(rest)
    try:
        return _other(name, rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


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


def _other(name: str, args: list[str]) -> int:
    json_out = "--json" in args
    args = [a for a in args if a != "--json"]
    if name == "tui":
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
        from remit_daemon.peers import mark

        about_own = args[:1] in (["why"], ["show"], ["test"], ["hits"], ["diff"]) or args == ["check"]
        if about_own and mark.tag_of(os.getpid()):  # its files are closed to sessions
            sys.stderr.write(
                "remit policy: not from inside a session; `remit denials` says what was refused\n"
            )
            return 2

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
        from remit_daemon.peers import mark

        if mark.tag_of(os.getpid()):
            sys.stderr.write("remit key: not from inside a session\n")
            return 3
        return key_cmd.run(args, json_out=json_out)
    if name == "doctor":
        from remit_daemon.cli import doctor_cmd

        return doctor_cmd.run(args, json_out=json_out)
    from remit_daemon.cli import commands
    from remit_daemon.peers import mark

    if name in commands.COMMANDS and name != "denials" and mark.tag_of(os.getpid()):
        sys.stderr.write(
            f"remit {name}: not from inside a session; `remit denials` says what was refused\n"
        )
        return 3
    if name not in commands.COMMANDS:
        sys.stderr.write(f"remit: unknown command {name!r}\n{USAGE}\n")
        return 2
    return commands.run(name, args, json_out)


def remitd(args: list[str] | None = None) -> int:
    """Run the daemon in the foreground; returns the exit status."""
    from remit_daemon.runtime.program import main as daemon

    return daemon(sys.argv[1:] if args is None else args)


if __name__ == "__main__":
    sys.exit(main())
