"""Our authorization server before a client that is not ours: ``oauth4webapi`` of npm, which refuses what the RFCs do not allow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.machine import Machine, until
from fakes.oauth import REDIRECT, RESOURCE, SETTINGS, free_port

INSTALL_SECONDS = 60.0
CLIENT = """
import * as oauth from "oauth4webapi";
const { issuer, resource, redirect, key } = JSON.parse(process.argv[2]);
const http = { [oauth.allowInsecureRequests]: true };
const client = { client_id: "inspector" }, none = oauth.None();
const url = new URL(issuer);
const as = await oauth.processDiscoveryResponse(url, await oauth.discoveryRequest(url, { algorithm: "oauth2", ...http }));
const say = (what, value) => console.log(JSON.stringify([what, value]));

const verifier = oauth.generateRandomCodeVerifier(), state = oauth.generateRandomState();
const link = new URL(as.authorization_endpoint);
for (const [name, value] of Object.entries({
  client_id: client.client_id, redirect_uri: redirect, response_type: "code", scope: "log:read", state, resource,
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
})) link.searchParams.set(name, value);
let where = link, back;  // the browser: follows, and looks again as the page says
while (!back) {
  const got = await fetch(where, { redirect: "manual" });
  const to = got.headers.get("location");
  if (to && to.startsWith(redirect)) back = new URL(to);
  else if (to) where = new URL(to, where);
  else if (got.status === 200) await new Promise((done) => setTimeout(done, 300));
  else throw new Error(`${got.status} ${await got.text()}`);
}
const params = oauth.validateAuthResponse(as, client, back, state);
const mixedUp = { ...as, issuer: "http://127.0.0.1:1" };
try { oauth.validateAuthResponse(mixedUp, client, back, state); say("mixed up", "taken"); } catch (e) { say("mixed up", e.code); }
const given = await oauth.processAuthorizationCodeResponse(as, client, await oauth.authorizationCodeGrantRequest(
  as, client, none, params, redirect, verifier, { additionalParameters: { resource }, ...http }));
say("given", [given.token_type, given.scope, Boolean(given.refresh_token)]);

const presented = (token) => new Request(resource, { headers: { authorization: `Bearer ${token}` } });
const claims = await oauth.validateJwtAccessToken(as, presented(given.access_token), resource, http);
say("claims", [claims.client_id, claims.aud, claims.act]);
try { await oauth.validateJwtAccessToken(as, presented(given.access_token), "https://else.example", http); say("else", "taken"); }
catch (e) { say("else", e.code); }

const server = { client_id: "mcp" }, proof = oauth.ClientSecretBasic(key);
const ask = async (token) => (await oauth.processIntrospectionResponse(as, server, await oauth.introspectionRequest(as, server, proof, token, http))).active;
const next = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, none, given.refresh_token, http));
say("active", [await ask(given.access_token), await ask(next.access_token)]);
await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, none, next.refresh_token, http));
say("revoked", [await ask(given.access_token), await ask(next.access_token)]);

const device = await oauth.processDeviceAuthorizationResponse(as, client, await oauth.deviceAuthorizationRequest(
  as, client, none, { scope: "policy:read", resource }, http));
const pair = await oauth.generateKeyPair("ES256"), DPoP = oauth.DPoP(client, pair);
for (;;) {
  try {
    const got = await oauth.processDeviceCodeResponse(as, client, await oauth.deviceCodeGrantRequest(
      as, client, none, device.device_code, { DPoP, ...http }));
    say("device", [got.token_type, got.scope]);
    const bound = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(
      as, client, none, got.refresh_token, { DPoP, ...http }));
    const thief = oauth.DPoP(client, await oauth.generateKeyPair("ES256"));
    try {
      await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(
        as, client, none, bound.refresh_token, { DPoP: thief, ...http }));
      say("copied", "taken");
    } catch (e) { say("copied", e.error); }
    break;
  } catch (e) {
    if (!["authorization_pending", "slow_down"].includes(e.error)) throw e;
    await new Promise((done) => setTimeout(done, device.interval * 1000));
  }
}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``oauth4webapi`` installed."""
    found = tmp_path_factory.mktemp("oauth")
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    step = [npm, "install", "--no-fund", "--no-audit", f"--prefix={found}", "oauth4webapi@3"]
    try:
        done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm was not done after {INSTALL_SECONDS} s")
    if done.returncode:
        pytest.skip(f"oauth4webapi could not be installed: {done.stderr[-300:]}")
    (found / "client.mjs").write_text(CLIENT)
    return found


@pytest.fixture
def machine() -> Iterator[Machine]:
    root = tempfile.mkdtemp(prefix="remit-")
    found = Machine(root)
    try:
        yield found
        found.stop()
    finally:
        if found.process is not None and found.process.poll() is None:
            found.kill()
        shutil.rmtree(root, ignore_errors=True)


def test_a_client_that_is_not_ours_is_served(place: Path, machine: Machine) -> None:
    port = free_port()
    os.makedirs(machine.paths.config)
    Path(machine.paths.config, "oauth.toml").write_text(SETTINGS % port)
    machine.start()
    person = machine.person()
    key = person.call("key.create", name="mcp", scope="policy:read", audience=RESOURCE, expires_in=600)[
        "key"
    ]
    order = json.dumps(
        {"issuer": f"http://127.0.0.1:{port}", "resource": RESOURCE, "redirect": REDIRECT, "key": key}
    )
    client = subprocess.Popen(
        ["node", "client.mjs", order], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(2):  # the code's, and the device's
            until(lambda: person.call("prompts") or client.poll() is not None, "it asks", 30)
            for prompt in person.call("prompts"):
                person.call("answer", id=prompt["id"], verdict="allow", for_=3600)
        out, err = client.communicate(timeout=60)
    finally:
        client.kill()
    assert client.returncode == 0, err
    said: dict[str, Any] = dict(json.loads(line) for line in out.splitlines())
    assert said == {
        "mixed up": "OAUTH_INVALID_RESPONSE",
        "given": ["bearer", "log:read", True],
        "claims": ["inspector", RESOURCE, {"sub": "inspector"}],
        "else": "OAUTH_JWT_CLAIM_COMPARISON_FAILED",
        "active": [True, True],
        "revoked": [False, False],
        "device": ["dpop", "policy:read"],
        "copied": "invalid_grant",
    }
