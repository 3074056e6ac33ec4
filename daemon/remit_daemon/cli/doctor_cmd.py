"""``remit doctor``: what this kernel enforces, found out by trying it, and what nobody enforces.

Exit status: 0 when everything that remit insists on works here, 1 when not, 2 for wrong use.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import textwrap
from typing import TextIO

from remit_daemon.gateway.dbus.address import sockets
from remit_daemon.kernel.probe import Check, check
from remit_daemon.peers import senders
from remit_daemon.supervisor import machine
from remit_daemon.wire.escape import escape

USAGE = "usage: remit doctor [--json]"
_WIDTH = 100  # columns; a terminal that is narrower wraps by itself

# Said here, and in the README no less. Each line is one thing an agent can still do or learn.
NOT_PROTECTED = (
    "names, sizes, owners and times of files: stat, access, readlink and inotify are not mediated",
    "command lines and states of your other processes, which /proc shows to every program of yours",
    "which program really runs: rules on exec are checked and recorded, but an interpreter, the dynamic "
    "loader or a shell runs any bytes that may be read; files and connections are the boundary",
    "descriptors that a session holds already, and the content of what an allowed file or connection carries",
    'each single read where a role says reads = "fixed": Landlock enforces those, nobody asks or records',
    "what a host that is allowed is told, where no rule is about single requests to it",
    "commands (ioctl) to a device that the session may open",
    "the network, where a role says net.all: TCP and UDP are then neither asked for nor inspected",
    "processor, memory and disk: use cgroups or ulimits against a program that takes too much",
    "covert channels between processes on one machine",
    "whatever was started without `remit run`: for Linux, such a process is you",
    "bugs of the kernel, and root",
)


def run(args: list[str], *, json_out: bool) -> int:
    """Try every mechanism and print what came of it. ``args``: none are taken. Returns the exit status."""
    if any(a in ("-h", "--help") for a in args):
        sys.stdout.write(
            f"{USAGE}\n\nTry what this kernel enforces. Exit status 1 where something needed is missing.\n"
        )
        return 0
    if args:
        sys.stderr.write(f"remit doctor: takes no argument {args[0]!r}\n{USAGE}\n")
        return 2
    checks = check()
    good = all(one.state == "full" for one in checks if one.required)
    if json_out:
        sys.stdout.write(json.dumps(report(checks, good)) + "\n")
    else:
        show(checks, good, sys.stdout)
    return 0 if good else 1


def report(checks: list[Check], good: bool) -> dict[str, object]:
    """Return what ``--json`` prints."""
    uname = os.uname()
    return {
        "ok": good,
        "kernel": uname.release,
        "machine": uname.machine,
        "root": os.geteuid() == 0,
        "checks": [
            {
                "name": one.name,
                "state": one.state,
                "required": one.required,
                "since": one.since,
                "tried": one.tried,
                "detail": one.detail,
            }
            for one in checks
        ],
        "surroundings": surroundings(),
        "not_protected": list(NOT_PROTECTED),
    }


def surroundings() -> list[str]:
    """Return what sessions find on this machine beside its kernel: names, buses and a keyring, each tried."""
    servers = machine.nameservers(assumed=False)
    names = (
        f"names are looked up at {', '.join(servers)}"
        if servers
        else "no nameserver in /etc/resolv.conf: this machine's own is asked, and hosts have no addresses without one"
    )
    named = senders.rung() == senders.PIDFD
    out = [
        names,
        "who writes to remit's sockets is told message by message, and held"
        if named
        else "who writes to remit's sockets is told by number alone, which another process may have got (Linux 6.5 does better)",
    ]
    for which, place in machine.bus_addresses(dict(os.environ)).items():
        there = f" at {place}" if place else ""
        out.append(
            f"the {which} bus answers; sessions reach it through a filter"
            if _answers(place)
            else f"no {which} bus{there}: sessions have none"
        )
    tool = shutil.which("secret-tool")
    out.append(
        f"secrets from a keyring are read by {tool}"
        if tool
        else "secrets from a keyring cannot be read: secret-tool (package libsecret-tools) is not installed"
    )
    return out


def _answers(place: str) -> bool:
    try:
        paths = sockets(place)
    except ValueError:
        return False
    for path in paths:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.settimeout(1)
                sock.connect(path)
            except OSError:
                continue
            return True
    return False


def show(checks: list[Check], good: bool, out: TextIO) -> None:
    """Print the checks for a person: the state in words, what was tried, what it means."""
    uname = os.uname()
    out.write(f"Linux {uname.release} on {uname.machine}\n\n")
    for one in checks:
        need = "" if one.state == "full" else " (needed)" if one.required else " (remit runs without it)"
        out.write(f"{one.state:<8}{one.name}{need}\n")
        out.write(_fold(f"tried: {one.tried}", 8))
        since = "" if one.state == "full" else f"; it came with Linux {one.since}"
        out.write(_fold(escape(one.detail) + since, 8))
    out.write("\nbeside the kernel:\n")
    for line in surroundings():
        out.write(_fold(escape(line), 4, "  - "))
    out.write("\nnot protected, on any kernel:\n")
    for line in NOT_PROTECTED:
        out.write(_fold(line, 4, "  - "))
    out.write("\n")
    if os.geteuid() == 0:
        out.write(
            "you are root: remit confines ordinary users' programs, and `remit run` refuses to start here\n"
        )
    if good:
        out.write("everything that remit needs works here\n")
    else:
        lacking = ", ".join(one.name for one in checks if one.required and one.state != "full")
        out.write(f"remit run will not start an agent here; missing: {lacking}\n")


def _fold(text: str, indent: int, first: str | None = None) -> str:
    space = " " * indent
    return textwrap.fill(text, _WIDTH, initial_indent=first or space, subsequent_indent=space) + "\n"
