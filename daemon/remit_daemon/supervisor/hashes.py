"""What a program is, by the SHA-256 of its file."""

from __future__ import annotations

import os

from remit_daemon.peers.digest import content_key, sha256_of

_LARGEST = 2 << 30  # a bigger program is recorded without a hash
_MAX_KNOWN = 4096


class Hashes:
    """The SHA-256 of files by their identity: device, inode, size, and both times in nanoseconds.

    Kept in a file over sessions: ctime moves with each change and cannot be set back by the file's owner.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[str, str] = {}
        try:
            with open(path, "rb") as f:
                lines = f.read(1 << 20).decode("ascii", "replace").split("\n")
            self._known = {k: h for k, _, h in (line.partition(" ") for line in lines) if len(h) == 64}
        except OSError:
            pass

    def get(self, st: os.stat_result) -> str | None:
        """Return the known hash of a file with this status."""
        return self._known.get(content_key(st))

    def compute(self, fd: int) -> str:
        """Return the hash of the file behind ``fd`` (O_PATH will do); empty when it cannot be read or is too big."""
        st = os.fstat(fd)
        digest = self._digest(fd, st)
        if os.fstat(fd).st_mtime_ns != st.st_mtime_ns:
            digest = ""  # written meanwhile: the bytes that were hashed may never have been the file
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
            self._rewrite(os.O_TRUNC, b"")
        self._known[content_key(st)] = digest
        if digest:
            self._rewrite(0, f"{content_key(st)} {digest}\n".encode())
        return digest

    def _digest(self, fd: int, st: os.stat_result) -> str:
        if st.st_size > _LARGEST:
            return ""
        try:
            readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            return sha256_of(readable)
        finally:
            os.close(readable)

    def _rewrite(self, flags: int, line: bytes) -> None:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
        except OSError:
            return
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
