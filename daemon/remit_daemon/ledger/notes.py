"""Checkpoints: signed notes that fix the tree's root at a size.

The body is a C2SP tlog-checkpoint (c2sp.org/tlog-checkpoint): origin, size, base64 root, a line each. It is signed
as a C2SP signed note (c2sp.org/signed-note) of Ed25519: an empty line, then ``— NAME BASE64(key id ‖ signature)``.
The key's name is the origin, which holds the start of the key's digest so that no two ledgers share it.

The key file holds the line that Go's sumdb/note tools read and write: ``PRIVATE+KEY+NAME+ID+BASE64``.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ALGORITHM = b"\x01"  # signed-note: Ed25519
_DASH = "\u2014 "
_PREFIX = "PRIVATE+KEY+"


class NoteError(ValueError):
    """A checkpoint or a key file is malformed, or its signature is not the ledger's."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says: the tree's ``size`` in rows and its ``root``."""

    size: int
    root: bytes


def origin_of(public: Ed25519PublicKey) -> str:
    """Return the origin (and key name) of the ledger that ``public`` belongs to."""
    return "remit.dev/ledger/" + sha256(public.public_bytes_raw()).hexdigest()[:16]


def _key_id(name: str, public: Ed25519PublicKey) -> bytes:
    return sha256(name.encode() + b"\n" + _ALGORITHM + public.public_bytes_raw()).digest()[:4]


def verifier_line(public: Ed25519PublicKey) -> str:
    """Return the note verifier key, to be kept elsewhere by whoever wants to check without trusting this disk."""
    name = origin_of(public)
    blob = b64encode(_ALGORITHM + public.public_bytes_raw()).decode()
    return f"{name}+{_key_id(name, public).hex()}+{blob}"


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """Return the signed note of ``checkpoint``."""
    public = key.public_key()
    name = origin_of(public)
    body = f"{name}\n{checkpoint.size}\n{b64encode(checkpoint.root).decode()}\n"
    signature = b64encode(_key_id(name, public) + key.sign(body.encode())).decode()
    return f"{body}\n{_DASH}{name} {signature}\n"


def read(note: str, public: Ed25519PublicKey) -> Checkpoint:
    """Return the checkpoint of ``note`` when ``public`` signed it. Raises NoteError."""
    body, blank, signatures = note.rpartition("\n\n")
    name = origin_of(public)
    lines = body.split("\n")
    if not blank or len(lines) != 3 or lines[0] != name or not signatures.endswith("\n"):
        raise NoteError("it is no checkpoint of this ledger")
    wanted = _key_id(name, public)
    for line in signatures[:-1].split("\n"):
        start = f"{_DASH}{name} "
        if not line.startswith(start):
            continue
        raw = _base64(line[len(start) :])
        if raw[:4] != wanted:
            continue
        try:
            public.verify(raw[4:], (body + "\n").encode())
        except InvalidSignature:
            raise NoteError("its signature is not the ledger's") from None
        root = _base64(lines[2])
        if (
            not (lines[1].isascii() and lines[1].isdigit())
            or str(int(lines[1])) != lines[1]
            or len(root) != 32
        ):
            raise NoteError("its size or root is malformed")
        return Checkpoint(int(lines[1]), root)
    raise NoteError("it is not signed by this ledger")


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise NoteError("its base64 is malformed") from None


def split(text: str) -> tuple[list[str], str]:
    """Cut a file of notes, each followed by an empty line, into notes and what is left of an unfinished one."""
    # A note is body, empty line, signatures; the file puts one more empty line behind it.
    parts = text.split("\n\n")
    notes = [f"{parts[at]}\n\n{parts[at + 1]}\n" for at in range(0, len(parts) - 2, 2)]
    whole = sum(len(note) + 1 for note in notes)
    return notes, text[whole:]


def load_key(path: str) -> Ed25519PrivateKey:
    """Return the key in file ``path``, which is created with mode 0600 when there is none.

    Raises NoteError when it is malformed or others may read it, OSError when it cannot be read or made.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _create_key(path)
    with open(fd, "rb") as file:
        if os.fstat(fd).st_mode & 0o077:
            raise NoteError(f"others may read the key file {path}")
        text = file.read(4096).decode("ascii", "replace")
    parts = text.rstrip("\n").removeprefix(_PREFIX).split("+", 2)  # a name holds no plus, base64 may
    raw = _base64(parts[2]) if text.startswith(_PREFIX) and len(parts) == 3 else b""
    if len(raw) != 33 or raw[:1] != _ALGORITHM:
        raise NoteError(f"{path} holds no ledger key")
    return Ed25519PrivateKey.from_private_bytes(raw[1:])


def _create_key(path: str) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    name = origin_of(key.public_key())
    blob = b64encode(_ALGORITHM + key.private_bytes_raw()).decode()
    line = f"{_PREFIX}{name}+{_key_id(name, key.public_key()).hex()}+{blob}\n"
    # Written under another name and linked: a crash leaves no half key, and a second creator finds the first's.
    half = f"{path}.{os.getpid()}.new"
    fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(fd)
        try:
            os.link(half, path)
        except FileExistsError:
            return load_key(path)
    finally:
        os.unlink(half)
    return key
