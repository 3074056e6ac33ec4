"""Loose git objects, read for the commits among them: without git, which runs what a repository's configuration names."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

MAX_COMMIT = 1 << 20  # bytes of a commit that are read: its message may be a merge's long log
SESSION_TRAILER = "Remit-Session"


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as it is stored: when it says that it was committed (seconds), and its message."""

    committed: int
    message: str


def commit_of(raw: bytes) -> Commit | None:
    """Return the commit that ``raw``, the beginning of a loose object's file, holds; None when it is another object.

    Raises ValueError when it is no object. Source: gitformat-loose(5), git-commit-tree(1).
    """
    try:
        text = zlib.decompressobj().decompress(raw, MAX_COMMIT)
    except zlib.error:
        raise ValueError("no git object") from None
    head, nul, body = text.partition(b"\0")
    kind, _, size = head.partition(b" ")
    if not nul or not size.isdigit():
        raise ValueError("no git object")
    if kind != b"commit":
        return None
    headers, _, message = body.partition(b"\n\n")
    committed = 0
    for line in headers.split(b"\n"):
        if line.startswith(b"committer "):
            words = line.rsplit(b" ", 2)
            committed = int(words[1]) if len(words) == 3 and words[1].isdigit() else 0
    return Commit(committed, message.decode("utf-8", "surrogateescape"))


def trailers(message: str) -> list[tuple[str, str]]:
    """Return the (key, value) pairs of the message's last paragraph, as git-interpret-trailers(1) sees them."""
    last = message.rstrip().rsplit("\n\n", 1)[-1]
    pairs = (line.partition(":") for line in last.split("\n"))
    return [(k.strip(), v.strip()) for k, colon, v in pairs if colon and k and " " not in k.strip()]


def remark(commit: Commit, session: str, started: float, program: Sequence[str]) -> str:
    """Return what is to be said of a ``commit`` whose object ``session`` wrote, beginning with MADE or BROUGHT.

    ``started`` is when the session began (seconds), ``program`` the arguments of what wrote the object. git writes what it
    fetches by ``unpack-objects``, where it is little (git-fetch-pack(1)); a program of the session can do the same with commits of its own,
    so of what came in this way, or is older than the session, nobody is named, and it is listed all the same.
    """
    if session in [v for k, v in trailers(commit.message) if k.lower() == SESSION_TRAILER.lower()]:
        return f"{MADE}, and its trailer says so"
    if "unpack-objects" in program[1:2]:
        return f"{BROUGHT} in a pack, by a fetch or otherwise; no trailer of it"
    if commit.committed < int(started):
        return f"{BROUGHT} with a date before it began; no trailer of it"
    return f"{MADE}, without its trailer"


MADE, BROUGHT = "made in this session", "brought in by this session"
