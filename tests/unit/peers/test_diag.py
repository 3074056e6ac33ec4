"""What the kernel answers of sockets: an error is not an empty answer."""

from __future__ import annotations

import errno
import struct

import pytest

from remit_daemon.peers import diag


@pytest.mark.parametrize("kind", [2, 3])  # NLMSG_ERROR, NLMSG_DONE
def test_an_error_is_not_an_empty_answer(kind: int) -> None:
    raw = struct.pack("=IHHIIi", 20, kind, 0, 0, 0, -errno.EPERM)
    with pytest.raises(PermissionError):
        list(diag.split(raw))


@pytest.mark.parametrize("raw", [bytes(100), bytes(7), struct.pack("=IHHII", 40, 20, 0, 0, 0)])
def test_an_answer_that_is_none(raw: bytes) -> None:
    with pytest.raises(OSError, match="none"):
        list(diag.split(raw))


def test_a_request_that_is_none() -> None:
    with pytest.raises(OSError, match=r"Invalid|No such"):
        list(diag.dump(b"\xff"))
