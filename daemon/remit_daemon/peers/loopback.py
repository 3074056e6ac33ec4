"""Who is at the other end of a TCP connection within this machine, by the kernel's word.

The kernel says which user's socket it is, and its inode; which processes hold it, /proc says, of the same user's alone. TCP has no
pidfd of its peer, and a socket may be held by several processes, so this is for a record and for keeping others out, never
for binding anything to a process. Standard library only.
"""

from __future__ import annotations

import _socket
import os
import struct

from remit_daemon.peers import diag

_STATES = (
    1 << 1 | 1 << 4 | 1 << 5 | 1 << 8
)  # <net/tcp_states.h>: established, or one side has said all (FIN_WAIT1, 2, CLOSE_WAIT)
_REQUEST = struct.Struct(
    "=BBBBI"
)  # the head of inet_diag_req_v2, <linux/inet_diag.h>; inet_diag_sockid follows
_ID = struct.Struct(">HH16s16s12x")
_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 2.5.5.2


def owner(there: tuple[str, int], here: tuple[str, int]) -> tuple[int, int] | None:
    """Return the user id and the inode of the socket that is bound to ``there`` and connected to ``here`` (IPv4 address, port).

    None when there is none any more. Raises OSError when the kernel does not tell.
    """
    source, target = _socket.inet_aton(there[0]), _socket.inet_aton(here[0])
    for family, head in ((_socket.AF_INET, b""), (_socket.AF_INET6, _MAPPED)):
        ident = _ID.pack(there[1], here[1], head + source, head + target)
        request = _REQUEST.pack(family, _socket.IPPROTO_TCP, 0, 0, _STATES) + ident
        found = None
        for body in diag.dump(request):  # to its end, or the socket that tells is closed too early
            # struct inet_diag_msg: 4 bytes, then as in the request; the user's id and the inode are its last words.
            size = len(head) + 4
            if (
                body[4:8] == ident[:4]
                and body[8 : 8 + size] == head + source
                and body[24 : 24 + size] == head + target
            ):
                found = struct.unpack_from("=II", body, 64)
        if found is not None and found[1]:  # without an inode it is nobody's any more
            return found[0], found[1]
    return None


def holders(inode: int) -> list[int]:
    """Return the processes that hold the socket ``inode``, as far as we may look, in the order of their numbers."""
    wanted, found = f"socket:[{inode}]", []
    for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
        try:
            if any(os.readlink(f"/proc/{pid}/fd/{fd}") == wanted for fd in os.listdir(f"/proc/{pid}/fd")):
                found.append(pid)
        except OSError:
            pass  # it ended, or is no program of ours
    return found
