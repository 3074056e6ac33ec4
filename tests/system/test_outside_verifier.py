"""Our tokens before a verifier that is not ours: ``jose`` of npm, with our published keys and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from remit_daemon.tokens.issuer import Issuer

INSTALL_SECONDS = 60.0
AUDIENCE = "https://tool.example"
VERIFIER = """
import { createLocalJWKSet, jwtVerify } from "jose";
import { readFileSync } from "node:fs";
const { jwks, tokens, issuer, audience } = JSON.parse(readFileSync(0, "utf8"));
const options = { issuer, audience, typ: "at+jwt", requiredClaims: ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"] };
for (const token of tokens) {
  try {
    const { payload } = await jwtVerify(token, createLocalJWKSet(jwks), options);
    console.log(JSON.stringify(payload));
  } catch (e) { console.log(JSON.stringify({ code: e.code ?? String(e) })); }
}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``jose`` installed."""
    found = tmp_path_factory.mktemp("jose")
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    step = [npm, "install", "--no-fund", "--no-audit", f"--prefix={found}", "jose@6"]
    try:
        done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm was not done after {INSTALL_SECONDS} s")
    if done.returncode:
        pytest.skip(f"jose could not be installed: {done.stderr[-300:]}")
    (found / "verify.mjs").write_text(VERIFIER)
    return found


def test_jose_takes_ours_and_nothing_else(place: Path) -> None:
    numbers = count()

    def issuer() -> Issuer:
        return Issuer("urn:remit:machine:1000", time.time, lambda: f"n{next(numbers)}")

    def issue(by: Issuer, audience: str = AUDIENCE) -> str:
        return by.issue(
            subject="u", agent="claude", bound="b:1:1", grant_id="g", scope="reader", audience=audience
        )[1]  # fmt: skip

    ours, others = issuer(), issuer()
    good = issue(ours)
    child = ours.exchange(good, "b:1:1", agent="helper", scope="files:read")[1]
    head, body, signature = good.split(".")
    tokens = [
        good,
        child,
        issue(ours, "https://other.example"),
        issue(others),
        f"{head}.{body[:-2]}AA.{signature}",
    ]
    order = {"jwks": ours.jwks(), "tokens": tokens, "issuer": ours.issuer, "audience": AUDIENCE}
    done = subprocess.run(
        ["node", "verify.mjs"], cwd=place, input=json.dumps(order), capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert said[0]["act"] == {"sub": "claude"}
    assert said[1]["act"] == {"sub": "helper", "act": {"sub": "claude"}}
    assert said[0]["cnf"] == {"urn:remit:process": "b:1:1"}
    assert [s.get("code") for s in said[2:]] == [
        "ERR_JWT_CLAIM_VALIDATION_FAILED", "ERR_JWKS_NO_MATCHING_KEY", "ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
    ]  # fmt: skip
