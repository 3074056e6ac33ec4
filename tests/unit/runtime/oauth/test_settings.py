from __future__ import annotations

from pathlib import Path

import pytest

from remit_daemon.runtime.oauth.settings import BadSettings, Settings, SettingsFile, parse

TEXT = """
loopback = 8765
client_hosts = ["app.example"]
[client.inspector]
name = "MCP Inspector"
redirect_uris = ["http://127.0.0.1/callback"]
[resource."http://127.0.0.1:3000/mcp"]
scope = "reader"
"""


def test_what_it_says() -> None:
    found = parse(TEXT)
    client = found.known("inspector")
    assert client is not None
    assert (client.id, client.agent, client.name) == ("inspector", "inspector", "MCP Inspector")
    assert found.known("else") is None
    assert (found.scope("http://127.0.0.1:3000/mcp"), found.scope("http://127.0.0.1:3000/")) == (
        "reader",
        "",
    )
    assert parse("") == Settings()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("loopback = 80", "loopback"), ("loopback = '8765'", "loopback"), ("loopback = true", "loopback"), ("port = 1", "port"),
        ("client_hosts = ['*']", "client_hosts.0"), ("client_hosts = ['10']", "client_hosts.0"), ("[client.'https://x']", "client"),
        ("[client.a]\nredirect_uris = ['http://evil.example/']", "client.a.redirect_uris.0"), ("[client.a]\nname = \"a\\u0007\"", "client.a.name"),
        ("[resource.x]", "resource"), ("x", "after a key"), ("[client.a]\nsecret = 'x'", "client.a.secret"),
    ],
)  # fmt: skip
def test_faults_are_named(text: str, where: str) -> None:
    with pytest.raises(BadSettings, match=where.replace(".", r"\.")):
        parse(text)


def test_a_fault_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, path = SettingsFile(str(tmp_path)), tmp_path / "oauth.toml"
    assert file.now() == Settings()
    path.write_text(TEXT)
    assert file.now().loopback == 8765
    path.write_text("loopback = 1")
    assert file.now().loopback == 8765
    assert "what held before still holds: loopback" in caplog.text
    path.write_bytes(b"\xff\xff")
    assert file.now().loopback == 8765
    path.unlink()
    assert file.now() == Settings()
    path.mkdir()
    assert file.now() == Settings()
