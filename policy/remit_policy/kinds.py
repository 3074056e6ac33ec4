"""What kind of file a path names, for a person who decides about it: told by where it is and what it is called.

What the packs protect is taken from their own rules (``protected``), so that there is one list of such places; names tell
the rest. A kind is a hint for the eye and never part of a decision: a key may be called ``notes.txt``.

    key          a private key or a store of keys          credential   a password, a token, a browser's profile
    history      what was typed before                     later        it runs later, outside the session
    program      it is run by being named                  config, source, document, data    by its name's ending
    file         anything else
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from posixpath import basename

from remit_policy.model import Rule

KINDS = ("key", "credential", "history", "later", "program", "config", "source", "document", "data", "file")
SECRET = ("key", "credential", "history")  # what gives away more than itself

_KEY_NAMES = ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ed25519_sk", "id_ecdsa_sk", "secring.gpg")
_BREAK = re.compile(r"[^a-z]+")
_KEY_PLACES = ("/.ssh/", "/.gnupg/", "/keyrings/", "/.pki/")
_ENDINGS = {
    "key": ("pem", "key", "p12", "pfx", "jks", "keystore", "kdbx", "ppk", "asc", "gpg", "age"),
    "program": ("sh", "bash", "zsh", "fish", "exe", "bat", "ps1", "so", "bin", "appimage", "desktop"),
    "config": ("toml", "yaml", "yml", "ini", "cfg", "conf", "config", "properties", "editorconfig", "lock"),
    "source": (
        "py", "js", "mjs", "cjs", "ts", "tsx", "jsx", "c", "h", "cc", "cpp", "hpp", "rs", "go", "java", "kt", "rb", "php",
        "pl", "lua", "swift", "scala", "cs", "hs", "ml", "ex", "exs", "css", "scss", "vue", "svelte", "sql",
    ),
    "document": ("md", "txt", "rst", "html", "htm", "pdf", "doc", "docx", "odt", "rtf", "tex", "ppt", "pptx", "odp", "epub"),
    "data": (
        "json", "jsonl", "csv", "tsv", "xml", "db", "sqlite", "sqlite3", "parquet", "xls", "xlsx", "ods", "log", "zip", "tar",
        "gz", "xz", "zst", "7z", "png", "jpg", "jpeg", "gif", "svg", "webp", "mp3", "mp4", "wav", "mov",
    ),
}  # fmt: skip
_OF_ENDING = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings}
# Words of a name that say that a secret is kept in it, unless it is a program's text or about them.
_WORDS = frozenset([
    "password", "passwords", "passwd", "passphrase", "credential", "credentials", "secret", "secrets", "token", "tokens",
    "apikey", "apikeys", "wallet", "keystore", "cookies",
])  # fmt: skip
_SPEAKING = ("source", "document", "program")
_READING = ("read", "list")


def kind_of(path: str, matches: Iterable[Rule]) -> str:
    """Return the kind of the file ``path``; ``matches`` are the rules that match it, for reading and for writing."""
    name = basename(path)
    stem = name.lower()
    ending = stem.rpartition(".")[2] if "." in stem[1:] else ""
    protected = [rule for rule in matches if rule.protected]
    secret = any(rule.op in _READING for rule in protected)
    if stem in _KEY_NAMES or (secret and any(place in path + "/" for place in _KEY_PLACES)):
        return "credential" if stem.endswith(".pub") or stem == "known_hosts" else "key"
    if stem.endswith("_history") or stem in (".histfile", ".lesshst", ".viminfo"):
        return "history"
    if secret or stem == ".env" or stem.startswith(".env."):
        return "credential"
    if protected:
        return "later"
    kind = _OF_ENDING.get(ending, "file")
    plain = kind not in _SPEAKING or ending == "txt"
    return "credential" if plain and _WORDS.intersection(_BREAK.split(stem)) else kind
