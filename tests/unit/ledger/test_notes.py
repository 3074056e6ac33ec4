from __future__ import annotations

import os
import stat
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from remit_daemon.ledger import notes

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
POINT = notes.Checkpoint(12, bytes(range(32)))


def test_key_ids_and_signatures_are_those_of_the_reference_implementation() -> None:
    # The example of golang.org/x/mod/sumdb/note.
    line = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    name, key_id, blob = line.split("+", 2)
    public = Ed25519PublicKey.from_public_bytes(b64decode(blob)[1:])
    assert notes._key_id(name, public).hex() == key_id
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    signed = b64decode(
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    )
    assert signed[:4].hex() == key_id
    public.verify(signed[4:], text.encode())


def test_a_checkpoint_has_the_form_of_the_specification() -> None:
    note = notes.sign(POINT, KEY)
    origin, size, root, blank, signature, end = note.split("\n")
    assert origin == notes.origin_of(KEY.public_key())
    assert size == "12"
    assert b64decode(root) == POINT.root
    assert (blank, end) == ("", "")
    assert signature.startswith(f"\u2014 {origin} ")
    assert notes.read(note, KEY.public_key()) == POINT


def test_other_signatures_beside_ours_are_let_be() -> None:
    note = notes.sign(POINT, KEY) + "\u2014 witness.example AAAAAAAA\n"
    assert notes.read(note, KEY.public_key()) == POINT


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_every_flip_is_found(at: int) -> None:
    note = notes.sign(POINT, KEY)
    at %= len(note)
    changed = note[:at] + chr(ord(note[at]) ^ 1) + note[at + 1 :]
    with pytest.raises(notes.NoteError):
        notes.read(changed, KEY.public_key())


def test_another_key_is_found() -> None:
    with pytest.raises(notes.NoteError):
        notes.read(notes.sign(POINT, Ed25519PrivateKey.generate()), KEY.public_key())


def test_a_file_of_notes_is_cut_again() -> None:
    both = [notes.sign(notes.Checkpoint(size, POINT.root), KEY) for size in (1, 2)]
    text = "".join(note + "\n" for note in both)
    assert notes.split(text) == (both, "")
    assert notes.split("") == ([], "")
    for cut in range(len(both[0]) + 1, len(text)):
        whole, rest = notes.split(text[:cut])
        assert whole == both[:1]
        assert rest == text[len(both[0]) + 1 : cut]


def test_keys_are_made_private_and_read_again(tmp_path: Path) -> None:
    for number in range(30):  # so that some have a plus in their base64
        path = str(tmp_path / f"key{number}")
        made = notes.load_key(path)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert notes.load_key(path).private_bytes_raw() == made.private_bytes_raw()
    assert sorted(os.listdir(tmp_path)) == sorted(f"key{n}" for n in range(30))


def test_a_key_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    notes.load_key(str(path))
    path.chmod(0o640)
    with pytest.raises(notes.NoteError, match="others may read"):
        notes.load_key(str(path))
    path.chmod(0o600)
    path.write_text("PRIVATE+KEY+x+y\n")
    with pytest.raises(notes.NoteError, match="no ledger key"):
        notes.load_key(str(path))
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        notes.load_key(str(tmp_path / "link"))
