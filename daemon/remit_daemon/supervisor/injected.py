"""What a session reads in the place of the machine's own files: the resolver's configuration and the trusted certificates.

The session's certificates are the machine's (or those of the person's own variables) and the one by which the gateway ends TLS where
policy has rules for requests or a secret is bound. Programs find them through the variables that they know, or, because
what they open is exchanged, in the usual file. Everything lies in the session's own directory: who changes it
changes what itself trusts, and nothing that the gateway does depends on it.
"""

from __future__ import annotations

import binascii
import hashlib
import os

from remit_daemon.supervisor import machine
from remit_daemon.wire.gateway import NAMESERVER

# Variables that name the file of all certificates to trust, by those who read them: OpenSSL and Go; curl; git; requests;
# pip; cargo; the AWS tools; Deno; codex; httplib2; gRPC; Nix; Bundler.
_WHOLE = (
    "SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE", "DENO_CERT", "CODEX_CA_CERTIFICATE", "HTTPLIB2_CA_CERTS", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE", "BUNDLE_SSL_CA_CERT",
)  # fmt: skip
_EXTRA = "NODE_EXTRA_CA_CERTS"  # Node: beside those that it has
# Where distributions keep it: Debian, Arch; Fedora; SUSE; Alpine, BSD.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
)  # fmt: skip
_RESOLV = "/etc/resolv.conf"
# JAVA_HOME's, and what distributions link it to: Debian, Fedora, Arch.
_JAVA = ("/lib/security/cacerts", "/ssl/certs/java/cacerts", "/pki/java/cacerts", "/ssl/java/cacerts")
_MAX_BUNDLE = 8 << 20  # bytes
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


class Injected:
    """Makes the files of one session in ``tmpdir``; ``authority`` is the file of the gateway's certificate."""

    def __init__(self, tmpdir: str, authority: str, env: dict[str, str]) -> None:
        self._tmpdir = tmpdir
        self._env = env
        self._own = _read(authority)
        self._made: dict[bytes, str] = {}
        self._java = ""
        self._files: dict[str, str] = {}
        self.names: frozenset[bytes] = frozenset((b"cacerts",))
        """Last components of paths that may be exchanged."""

    def make(self) -> dict[str, str]:
        """Make the files; returns the variables that name them. Raises OSError when the directory cannot be written."""
        bundles = [os.path.realpath(path) for path in _BUNDLES if os.path.exists(path)]
        usual = _read(bundles[0]) if bundles else b""
        own: dict[str, str] = {}
        if self._own:
            for name in _WHOLE:
                given = _read(self._env[name]) if self._env.get(name) else b""
                if given or usual:
                    own[name] = self._file("certificates", given or usual)
            given = _read(self._env[_EXTRA]) if self._env.get(_EXTRA) else b""
            own[_EXTRA] = self._file("certificates", given)
            for path in bundles:
                self._files[path] = self._file("certificates", _read(path))
        if os.path.exists(_RESOLV):
            servers = [NAMESERVER, *machine.nameservers()]
            text = "".join(f"nameserver {s}\n" for s in servers) + machine.resolver_options()
            self._files[os.path.realpath(_RESOLV)] = self._put("resolv.conf", text.encode())
        self.names |= {os.fsencode(os.path.basename(path)) for path in self._files}
        return own

    def instead_of(self, real: str) -> str:
        """Return the file that is read in the place of ``real``, "" when none is."""
        if real.endswith(_JAVA) and self._own:
            return self._key_store()
        return self._files.get(real, "")

    def _file(self, name: str, certificates: bytes) -> str:
        """Return a file of ``certificates`` and the gateway's."""
        made = self._made.get(certificates)
        if made is None:
            if len(self._made):
                name += f"-{len(self._made)}"
            blank = b"" if not certificates or certificates.endswith(b"\n") else b"\n"
            made = self._made[certificates] = self._put(name + ".pem", certificates + blank + self._own)
        return made

    def _put(self, name: str, data: bytes) -> str:
        path = f"{self._tmpdir}/run/{name}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        return path

    def _key_store(self) -> str:
        """Return Java's form of the machine's certificates, made when a Java program first looks."""
        if not self._java:
            bundle = next((data for data in self._made if data), b"")
            try:
                self._java = self._put("cacerts", key_store(certificates(bundle + b"\n" + self._own)))
            except OSError:
                return ""
        return self._java


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read(_MAX_BUNDLE)
    except OSError:
        return b""


def certificates(pem: bytes) -> list[bytes]:
    """Return the certificates (DER) in ``pem``; what is none is passed over."""
    found = []
    for part in pem.split(_BEGIN)[1:]:
        try:
            found.append(binascii.a2b_base64(part.partition(_END)[0]))
        except binascii.Error:
            continue
    return found


def key_store(trusted: list[bytes]) -> bytes:
    """Return a key store (JKS, version 2, as ``sun.security.provider.JavaKeyStore`` reads it) of trusted certificates."""
    out = [b"\xfe\xed\xfe\xed", (2).to_bytes(4, "big"), len(trusted).to_bytes(4, "big")]
    for number, der in enumerate(trusted):
        alias = b"remit-%d" % number
        out.append((2).to_bytes(4, "big") + len(alias).to_bytes(2, "big") + alias + bytes(8))
        out.append((5).to_bytes(2, "big") + b"X.509" + len(der).to_bytes(4, "big") + der)
    body = b"".join(out)
    # Not a secret but the format's own checksum: the password that every cacerts has.
    password = "changeit".encode("utf-16-be")
    return body + hashlib.sha1(password + b"Mighty Aphrodite" + body, usedforsecurity=False).digest()
