"""What the kernel tells of sockets (sock_diag(7))."""

from __future__ import annotations

import _socket
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NLM_F_DUMP = 20, 1, 0x300  # <linux/sock_diag.h>, <linux/netlink.h>
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NETLINK_SOCK_DIAG = 4
_HEAD = struct.Struct("=IHHII")  # struct nlmsghdr
_ROOM = 1 << 17  # bytes of one datagram of the answer; the kernel makes them 32 kB at most


def dump(request: bytes) -> Iterator[bytes]:
    """Yield what the kernel answers to ``request`` (a `..._diag_req`): one `..._diag_msg` for each socket.

    Raises OSError: the kernel does not tell, which is not the same as that there are none.
    """
    netlink = _socket.socket(
        _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    )
    try:
        size, flags = _HEAD.size + len(request), _NLM_F_REQUEST | _NLM_F_DUMP
        netlink.send(_HEAD.pack(size, _SOCK_DIAG_BY_FAMILY, flags, 0, 0) + request)
        while True:
            for kind, body in split(netlink.recv(_ROOM)):
                if kind == _NLMSG_DONE:
                    return
                yield body
    finally:
        netlink.close()


def split(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the body of each message of ``raw``. Raises OSError for one that tells of an error, or is none."""
    at = 0
    while at < len(raw):
        if len(raw) - at < _HEAD.size:
            raise OSError(errno.EBADMSG, "an answer that is none")
        size, kind, *_ = _HEAD.unpack_from(raw, at)
        if size < _HEAD.size or at + size > len(raw):
            raise OSError(errno.EBADMSG, "an answer that is none")
        body = raw[at + _HEAD.size : at + size]
        if kind in (_NLMSG_ERROR, _NLMSG_DONE) and len(body) >= 4:
            code = struct.unpack_from("=i", body)[0]  # 0, or an errno, negative
            if code:
                raise OSError(-code, os.strerror(-code))
        yield kind, body
        at += (size + 3) & ~3
