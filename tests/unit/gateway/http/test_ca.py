"""The sessions' authority: kept, private, one for all gateways; its certificates hold for one host and a day."""

from __future__ import annotations

import datetime
import os
import ssl
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from remit_daemon.gateway.http import ca


def test_it_is_kept_and_its_key_is_private(tmp_path: Path) -> None:
    first = ca.ensure(str(tmp_path))
    assert ca.ensure(str(tmp_path)).pem == first.pem == (tmp_path / ca.CERTIFICATE).read_bytes()
    assert os.stat(tmp_path / ca.KEY).st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in (tmp_path / ca.CERTIFICATE).read_bytes()


@pytest.mark.parametrize("damage", ["key", "certificate", "pair"])
def test_a_damaged_one_is_made_anew(tmp_path: Path, damage: str) -> None:
    first = ca.ensure(str(tmp_path))
    if damage == "pair":
        (tmp_path / "other").mkdir()
        ca.ensure(str(tmp_path / "other"))
        os.rename(tmp_path / "other" / ca.KEY, tmp_path / ca.KEY)
    else:
        (tmp_path / (ca.KEY if damage == "key" else ca.CERTIFICATE)).write_bytes(b"-----BEGIN nothing")
    assert ca.ensure(str(tmp_path)).pem != first.pem


def test_one_that_ends_soon_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca, "_LIFE", datetime.timedelta(days=29))
    first = ca.ensure(str(tmp_path))
    assert ca.ensure(str(tmp_path)).pem != first.pem


def _made(state: str) -> bytes:
    return ca.ensure(state).pem


def test_gateways_that_begin_at_once_have_one(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        assert len(set(pool.map(_made, [str(tmp_path)] * 8))) == 1
    assert {p.name for p in tmp_path.iterdir()} == {ca.KEY, ca.CERTIFICATE}  # no left-overs


@pytest.mark.parametrize(
    "host", ["a.example", "localhost", "192.0.2.1", "2001:db8::1", "a" * 60 + ".example.example"]
)
def test_a_host_is_proved_and_no_other(tmp_path: Path, host: str) -> None:
    authority = ca.ensure(str(tmp_path))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=authority.pem.decode())

    def shake(name: str) -> None:
        pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = authority.context(host).wrap_bio(*pipes, server_side=True)
        other = client.wrap_bio(pipes[1], pipes[0], server_hostname=name)
        for _ in range(4):
            for side in (other, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    pass

    shake(host)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake("b.example")


def test_a_certificate_lasts_a_day_and_signs_nothing(tmp_path: Path) -> None:
    authority = ca.ensure(str(tmp_path))
    now = datetime.datetime.now(datetime.UTC)
    leaf = authority._leaf("a.example", now)
    assert leaf.not_valid_after_utc - now <= datetime.timedelta(days=1)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (
        authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        == 0
    )
    assert authority.context("a.example") is authority.context("a.example")
    for n in range(ca.MAX_LEAVES + 1):
        authority._contexts[f"{n}.example"] = authority._contexts["a.example"]
    authority.context("b.example")
    assert len(authority._contexts) <= ca.MAX_LEAVES
