"""The authority that vouches for the gateway where it ends an agent's TLS: one a user, trusted by sessions alone.

Its key never leaves the state directory (0600), which is closed to every session. Name constraints are not
practical: which hosts need it is the policy's word of the moment, and the certificate outlives that; what bounds it
is who trusts it. Host certificates live a day, in memory.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import ssl
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from remit_daemon.gateway.dns.hosts import LOOPBACK
from remit_policy import hosts

CERTIFICATE, KEY = "ca.pem", "ca.key"
_LIFE = datetime.timedelta(days=730)
_RENEW = datetime.timedelta(days=30)  # before its end it is made anew, for the sessions that begin then
_LEAF_LIFE = datetime.timedelta(hours=24)
_LEAF_RENEW = datetime.timedelta(hours=12)  # a longer session is given a fresh one
_SKEW = datetime.timedelta(hours=1)  # clocks of containers and guests
MAX_LEAVES = 512


class Authority:
    """The CA's key and certificate, and the contexts for hosts made of them."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate
        self._leaf_key = ec.generate_private_key(
            ec.SECP256R1()
        )  # one for all hosts: it lives in this process only
        self._contexts: dict[str, tuple[ssl.SSLContext, datetime.datetime]] = {}

    @property
    def pem(self) -> bytes:
        """The certificate, for those who are to trust it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, host: str) -> ssl.SSLContext:
        """Return a server's context that proves to be the canonical ``host``, speaking HTTP/1.1 alone."""
        now = datetime.datetime.now(datetime.UTC)
        found = self._contexts.get(host)
        if found is not None and found[1] > now:
            return found[0]
        if len(self._contexts) >= MAX_LEAVES:
            self._contexts.clear()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        chain = self._leaf(host, now).public_bytes(serialization.Encoding.PEM) + self.pem
        key = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # ssl reads files alone; this one has no name that anybody could open.
        with tempfile.TemporaryFile() as f:
            f.write(key + chain)
            f.flush()
            context.load_cert_chain(f"/proc/self/fd/{f.fileno()}")
        self._contexts[host] = context, now + _LEAF_RENEW
        return context

    def _leaf(self, host: str, now: datetime.datetime) -> x509.Certificate:
        import ipaddress

        addresses = LOOPBACK if host == hosts.LOCAL else (host,) if hosts.is_address(host) else ()
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
        if not hosts.is_address(host):
            names.insert(0, x509.DNSName(host))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
        ours = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + _LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ours), critical=False
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._leaf_key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


def ensure(state: str) -> Authority:
    """Return the authority kept in directory ``state``, made anew where there is none that still lasts. Raises OSError.

    Gateways that begin at once take turns: each would otherwise keep an authority that the others' sessions do not trust.
    """
    fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return _ensure(state)
    finally:
        os.close(fd)


def _ensure(state: str) -> Authority:
    now = datetime.datetime.now(datetime.UTC)
    try:
        with open(f"{state}/{KEY}", "rb") as f:
            key = serialization.load_pem_private_key(f.read(), None)
        with open(f"{state}/{CERTIFICATE}", "rb") as f:
            certificate = x509.load_pem_x509_certificate(f.read())
        ours = isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key()
        if ours and certificate.not_valid_after_utc - _RENEW > now:
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return Authority(key, certificate)
    except (OSError, ValueError):
        pass
    fresh = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"remit of user {os.getuid()}, for agents' sessions only")]
    )
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(fresh.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(fresh.public_key()), critical=False)
        .sign(fresh, hashes.SHA256())
    )
    raw = fresh.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _put(f"{state}/{KEY}", raw, 0o600)
    _put(f"{state}/{CERTIFICATE}", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return Authority(fresh, certificate)


def _put(path: str, data: bytes, mode: int) -> None:
    fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        os.fchmod(fd, mode)
        os.write(fd, data)
        os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)
