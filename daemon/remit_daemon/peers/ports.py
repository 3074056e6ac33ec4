"""Who listens at a port of this machine, and whether reaching it means more than a connection.

A browser that is debugged does what it is told wherever its person is logged in, a debugged program runs what it is sent, and
an X server shows and types everything. Such a port is the application, not one service among others. Standard library
only: the supervisor uses this module as well.
"""

from __future__ import annotations

import _socket
import os
import struct

from remit_daemon.peers import diag, mark

_LISTEN = 10  # TCP_LISTEN, <net/tcp_states.h>
_REQUEST = struct.Struct("=BBBBI48s")  # inet_diag_req_v2 of <linux/inet_diag.h>

DEBUGGER = "debugger"
_X11 = range(6000, 6064)  # X(7): 6000 and the display's number
_SOUND = 4713  # PulseAudio's module-native-protocol-tcp
# What in a program's arguments has it listen for whoever would work it: (argument's beginning, what that is).
# Chromium and Firefox; Node and Deno; debugpy; the JVM.
_SWITCHES = (
    (b"--remote-debugging-port", "app:browser"), (b"--marionette", "app:browser"), (b"-marionette", "app:browser"),
    (b"--remote-allow-hosts", "app:browser"), (b"--start-debugger-server", "app:browser"),
    (b"-start-debugger-server", "app:browser"), (b"--inspect", DEBUGGER), (b"debugpy", DEBUGGER),
    (b"-agentlib:jdwp", DEBUGGER), (b"-Xrunjdwp", DEBUGGER),
)  # fmt: skip
_MAX_CMDLINE = 1 << 16
_MAX_KNOWN = 1024
_known: dict[tuple[int, frozenset[int]], str] = {}


def application(port: int, inodes: set[int]) -> str:
    """Return what listens at ``port`` with the sockets ``inodes``: `app:NAME`, DEBUGGER, or "" for a service like any other."""
    if port in _X11:
        return "app:screen"
    if port == _SOUND:
        return "app:audio"
    key = port, frozenset(inodes)
    found = _known.get(key)
    if found is None:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        found = _known[key] = _worked(inodes)
    return found


def _worked(inodes: set[int]) -> str:
    """Return what a program of one of the sockets was told to be worked by."""
    wanted = {f"socket:[{i}]" for i in inodes}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        what = _switch(pid)
        if what and _holds(pid, wanted):
            return what
    return ""


def in_a_session(inodes: set[int]) -> bool:
    """Say whether an agent's process holds one of the sockets."""
    wanted = {f"socket:[{i}]" for i in inodes}
    pids = filter(str.isdigit, os.listdir("/proc")) if wanted else ()
    return any(mark.tag_of(int(pid)) and _holds(pid, wanted) for pid in pids)


def _switch(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            words = f.read(_MAX_CMDLINE).split(b"\0")
    except OSError:
        return ""
    if len(words) < 3:  # a program that writes its title joins its arguments (Chromium's helpers)
        words = [w for word in words for w in word.split(b" ")]
    return next((what for w in words[1:] for start, what in _SWITCHES if w.startswith(start)), "")


def _holds(pid: str, wanted: set[str]) -> bool:
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{number}") in wanted:
                return True
    except OSError:
        pass  # it ended, or is no program of ours
    return False


def listening(port: int) -> set[int]:
    """Return the inodes of the TCP sockets that listen at ``port``. Raises OSError."""
    found: set[int] = set()
    identity = struct.pack(">HH44x", port, 0)  # the kernel leaves out other ports
    for family in (_socket.AF_INET, _socket.AF_INET6):
        request = _REQUEST.pack(family, _socket.IPPROTO_TCP, 0, 0, 1 << _LISTEN, identity)
        for body in diag.dump(request):
            # struct inet_diag_msg: 4 bytes, then the source port in network order; the inode is its last word.
            if struct.unpack_from(">H", body, 4)[0] == port:
                found.add(struct.unpack_from("=I", body, 68)[0])
    return found
