"""``remit run``: one session from its command line to its end.

Imports nothing that is slow to import: a session is to start within 25 ms over the program's own start.
"""

from __future__ import annotations

import os
import sys

from remit_daemon.kernel import landlock, probe
from remit_daemon.peers import mark
from remit_daemon.supervisor import launch, upcall
from remit_daemon.supervisor.hashes import Hashes
from remit_daemon.wire import control, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
USAGE = (
    "usage: remit run [--agent NAME] [--project DIR] [--policy FILE]...\n"
    "                 [--ask prompt|deny|allow-once | --learn] [--hold TIME]\n"
    "                 -- COMMAND [ARGUMENT]..."
)
HELP = f"""{USAGE}

Start COMMAND as an agent under policy. Its exit status is COMMAND's.

  --agent NAME      call it so; else it has its program's name
  --project DIR     its project; else the current directory
  --policy FILE     rules for this session, beside yours; may be repeated
  --ask prompt      ask you, in another terminal (the default)
  --ask deny        refuse at once what would be asked
  --ask allow-once  let it through: for trials, with programs that you trust
  --learn           let through, and record for `remit learn`, what no rule is
                    about and is not dangerous; ask the rest
  --hold TIME       how long a call waits for your answer: 25s if not said

125: COMMAND was not started; 126, 127: it cannot be executed, is not there.
Inside a session COMMAND is a sub-agent: --agent and --policy alone.
"""
ASK_MODES = ("prompt", "deny", "allow-once")
_UNITS = {"s": 1.0, "m": 60.0, "ms": 0.001, "": 1.0}
_TRUST_ROOTS = ("node_modules", "site-packages")


class UsageError(Exception):
    """The command line is wrong."""


class HelpAsked(Exception):
    """``--help`` stands among the options."""


class Options:
    """What the command line says."""

    def __init__(self) -> None:
        self.agent = ""
        self.project = ""
        self.policy: list[str] = []
        self.ask = "prompt"
        self.hold = 0.0
        self.command: list[str] = []


def parse(args: list[str]) -> Options:
    """Return the options of ``remit run``'s arguments. Raises UsageError, HelpAsked."""
    options, rest, learn, given = Options(), list(args), False, ""
    while rest:
        word = rest.pop(0)
        if word == "--":
            options.command = rest
            break
        if not word.startswith("-"):
            options.command = [word, *rest]
            break
        if word == "--learn":
            learn = True
            continue
        if word in ("-h", "--help"):
            raise HelpAsked
        name, equals, value = word.partition("=")
        if name not in ("--agent", "--project", "--policy", "--ask", "--hold"):
            raise UsageError(f"unknown option {name}; those of COMMAND come after --")
        if not equals:
            if not rest:
                raise UsageError(f"{name} needs a value")
            value = rest.pop(0)
        if name == "--agent":
            if not value or len(value) > 64 or not all(c.isalnum() or c in "._-" for c in value):
                raise UsageError(f"--agent {value!r}: letters, digits, '.', '_' and '-' only")
            options.agent = value
        elif name == "--project":
            options.project = value
        elif name == "--policy":
            # Its real path: the session may not write there, and no link that it may change leads elsewhere.
            options.policy.append(os.path.realpath(value))
        elif name == "--ask":
            if value not in ASK_MODES:
                raise UsageError(f"--ask {value!r}: expected {', '.join(ASK_MODES)}")
            options.ask = given = value
        else:
            options.hold = _seconds(value)
    if learn:
        if given:
            raise UsageError("--learn is a way to ask: it goes without --ask")
        options.ask = "learn"
    if not options.command:
        raise UsageError("no command to run")
    return options


def _seconds(text: str) -> float:
    number = text.rstrip("ms")
    try:
        seconds = float(number) * _UNITS[text[len(number) :]]
    except (ValueError, KeyError):
        raise UsageError(f"--hold {text!r}: expected a time such as 25s") from None
    if not 0.05 <= seconds <= 3600:
        raise UsageError(f"--hold {text!r}: expected 50ms to 60m")
    return seconds


def main(args: list[str], start_daemon: Callable[[], None]) -> int:
    """Run ``remit run``; ``start_daemon`` starts remitd and waits for its sockets.

    Returns an exit status only when the agent did not start (0 for ``--help``, 2, 3, 125, 126, 127); otherwise the process ends as the
    agent ended.
    """
    try:
        options = parse(args)
        return _run(options, start_daemon)
    except HelpAsked:
        sys.stdout.write(HELP)
        return 0
    except UsageError as e:
        return _fail(f"{e}\n{USAGE}", 2)
    except launch.LaunchError as e:
        return _fail(str(e), e.code)
    except upcall.Refused as e:
        return _fail(str(e), e.code)
    except upcall.Unreachable as e:
        return _fail(str(e), 3)
    except (probe.Unsupported, landlock.LandlockError) as e:
        return _fail(f"{e}; `remit doctor` says more", 125)
    except paths.PathsError as e:
        return _fail(str(e), 125)


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"remit: {text}\n")
    return code


def _run(options: Options, start_daemon: Callable[[], None]) -> int:
    here = paths.find()
    if os.geteuid() == 0 or os.getuid() != os.geteuid():
        raise launch.LaunchError(
            "remit is for ordinary users: root's programs cannot be confined by it", 125
        )
    cwd = os.getcwd()
    project = os.path.realpath(options.project or cwd)
    if not os.path.isdir(project):
        raise UsageError(f"--project {options.project}: not a directory")
    for directory in (here.state, here.runtime, here.spool):
        paths.make_private(directory)
    probe.require(here.state + "/kernel")
    env = dict(os.environ)
    program = launch.find_program(options.command[0], env.get("PATH", os.defpath))
    hashes = Hashes(here.hashes)
    exe = os.path.realpath(program)
    tag = mark.new_tag()
    tmpdir = launch.make_tmpdir()
    kept = launch.start_warden(tag)
    hello: dict[str, Any] = {
        "type": "hello",
        "version": control.VERSION,
        "agent": options.agent,
        "argv": options.command,
        "exe": exe,
        "sha256": _digest(hashes, exe),
        "cwd": cwd,
        "project": project,
        "home": os.path.realpath(env.get("HOME") or "/"),
        "tty": os.isatty(2),
        "ask": options.ask,
        "policy": options.policy,
        "hold": int(options.hold * 1000),
        "tag": tag,
        "launch": launch_dirs(program, exe),
        "session": "",
        "tmpdir": tmpdir,
    }
    try:
        return _serve(here, hello, program, env, hashes, start_daemon, kept)
    except BaseException:
        launch.remove_tree(tmpdir)
        raise


def _serve(
    here: paths.Paths,
    hello: dict[str, Any],
    program: str,
    env: dict[str, str],
    hashes: Hashes,
    start_daemon: Callable[[], None],
    kept: int,
) -> int:
    try:
        sock = upcall.connect(here.control)
    except upcall.Unreachable:
        start_daemon()
        sock = upcall.connect(here.control)
    line = upcall.Upcall(here.control, sock)
    line.say(hello)
    # Imported while remitd makes the snapshot: half of the time that a start takes.
    from remit_daemon.supervisor import serve

    return serve.serve(serve.Start(here, hello, program, env, hashes, kept), line)


def _digest(hashes: Hashes, exe: str) -> str:
    fd = os.open(exe, os.O_PATH | os.O_CLOEXEC)
    try:
        known = hashes.get(os.fstat(fd))
        return hashes.compute(fd) if known is None else known
    finally:
        os.close(fd)


def launch_dirs(program: str, exe: str) -> list[str]:
    """Return the directories that the launched program itself comes from, to be read and executed.

    The person named the program; what it is made of is what is installed with it: the ``node_modules`` tree or the
    virtual environment that holds it, else only its own file.
    """
    found = {exe}
    for path in (os.path.abspath(program), exe):
        parts = path.split("/")
        for index in range(len(parts) - 1, 1, -1):
            directory = "/".join(parts[:index])
            if parts[index - 1] in _TRUST_ROOTS or os.path.exists(directory + "/pyvenv.cfg"):
                found.add(directory)
                break
    home = os.path.realpath(os.path.expanduser("~"))
    return sorted(p for p in found if p not in ("/", home) and not home.startswith(p + "/"))
