"""What an interpreter was told to run."""

from __future__ import annotations

import pytest

from remit_daemon.peers.scripts import Kind, interpreter, script_of

F, C, M, S, U = Kind.FILE, Kind.CODE, Kind.MODULE, Kind.STDIN, Kind.UNKNOWN


@pytest.mark.parametrize(
    ("line", "kind", "what"),
    [
        ("python3 a.py x -c", F, "a.py"),
        ("python3 -I -u -W error a.py", F, "a.py"),
        ("python3 -Werror -X dev a.py", F, "a.py"),
        ("python3 -Ic code", C, ""),
        ("python3 -ccode", C, ""),
        ("python3 -m pip install", M, "pip"),
        ("python3 -Impip", M, "pip"),
        ("python3 -", S, ""),
        ("python3", S, ""),
        ("python3 -- -odd.py", F, "-odd.py"),
        ("python3 -Z a.py", U, ""),
        ("python3 --unheard-of a.py", U, ""),
        ("node cli.js --eval x", F, "cli.js"),
        ("node --enable-source-maps --max-old-space-size=4096 cli.js", F, "cli.js"),
        ("node --require x.js cli.js", F, "cli.js"),
        ("node --require=x.js cli.js", F, "cli.js"),
        ("node -r x.js cli.js", F, "cli.js"),
        ("node -pe 1", C, ""),
        ("node --eval=1", C, ""),
        ("node -", S, ""),
        ("bash -c ls", C, ""),
        ("bash -lc ls", C, ""),
        ("bash -o pipefail -c ls", C, ""),
        ("bash -euo pipefail script.sh", F, "script.sh"),
        ("bash --norc --rcfile x script.sh", F, "script.sh"),
        ("sh +e script.sh", F, "script.sh"),
        ("sh -s script.sh", S, ""),
        ("sh", S, ""),
        ("perl -w -Ilib -MJSON tool.pl", F, "tool.pl"),
        ("perl -we 1", C, ""),
        ("ruby -I lib tool.rb", F, "tool.rb"),
        ("ruby -rjson -e 1", C, ""),
        ("deno run -A --allow-net=x main.ts", F, "main.ts"),
        ("deno eval 1", C, ""),
        ("deno fmt x", U, ""),
        ("bun run main.ts", F, "main.ts"),
        ("bun main.ts", F, "main.ts"),
        ("bun -e 1", C, ""),
    ],
)
def test_command_lines(line: str, kind: Kind, what: str) -> None:
    argv = line.split()
    name = interpreter("/usr/bin/" + argv[0])
    assert script_of(name, argv) == (kind, what)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/python3.11", "python"), ("/opt/node/bin/node", "node"), ("/usr/bin/dash", "dash"), ("/bin/sh", "sh"),
        ("/usr/bin/node (deleted)", "node"), ("/usr/bin/python3-config", ""), ("/usr/bin/nodemon", ""), ("/usr/bin/claude", ""),
        ("/usr/bin/perl5.36", "perl"), ("/memfd:python3", ""),
    ],
)  # fmt: skip
def test_interpreters_are_known_by_name(path: str, name: str) -> None:
    assert interpreter(path) == name


def test_no_command_line_at_all() -> None:
    assert script_of("python", []) == (U, "")
