"""The SHA-256 of an open file, and what names its content without reading it. Standard library only: the supervisor uses this too."""

from __future__ import annotations

import os

_CHUNK = 1 << 20


def content_key(st: os.stat_result) -> str:
    """Return what names a file's content: identity, size and both times. ctime moves with each change and its owner cannot set it back."""
    return f"{st.st_dev}:{st.st_ino}:{st.st_size}:{st.st_mtime_ns}:{st.st_ctime_ns}"


def sha256_of(fd: int) -> str:
    """Return the SHA-256 of what ``fd``, open for reading, has from its position to its end. Raises OSError."""
    from _hashlib import openssl_sha256  # not hashlib: it loads much more, and supervisors start often

    hash = openssl_sha256(usedforsecurity=True)
    while chunk := os.read(fd, _CHUNK):
        hash.update(chunk)
    return str(hash.hexdigest())
