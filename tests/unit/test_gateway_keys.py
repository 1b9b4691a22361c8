"""Who may publish: keys hashed at rest, tokens of one issuer, rates."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fluvial.errors import SettingsError
from fluvial.producers.gateway.auth import authenticator
from fluvial.producers.gateway.keys import Grant, KeyFile, KeysError
from fluvial.producers.gateway.rates import RateLimiter
from fluvial.settings import GatewaySettings


def test_a_key_is_known_until_it_is_revoked_and_never_stored(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys, other_process = KeyFile(path), KeyFile(path)
    key = keys.add("plant-7", ("iot.readings",), "p7/", 100.0)
    assert other_process.grant(key) == Grant("plant-7", ("iot.readings",), "p7/", 100.0)
    assert key not in path.read_text()
    assert key.split("_", 2)[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys.revoke("plant-7")
    assert keys.grant(key) is None
    assert other_process.grant(key) is None
    assert [k.revoked is not None for k in keys.all()] == [True]
    again = keys.add("plant-7", ("iot.readings",))
    assert keys.grant(again) is not None


@pytest.mark.parametrize("wrong", ["", "flv_", "flv_00000000_" + "A" * 43, "x" * 100, "flv_zzzzzzzz_" + "A" * 43])
def test_a_wrong_key_is_nobody(tmp_path: Path, wrong: str) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    assert keys.grant(wrong) is None
    key = keys.add("a", ("t",))
    assert keys.grant(wrong) is None
    assert keys.grant(key[:-1] + ("A" if key[-1] != "A" else "B")) is None


def test_names_are_single_and_plain(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    keys.add("a", ("t",))
    with pytest.raises(KeysError, match="already"):
        keys.add("a", ("t",))
    with pytest.raises(KeysError, match="no name"):
        keys.add("a b", ("t",))
    with pytest.raises(KeysError, match="no key nobody"):
        keys.revoke("nobody")


def test_a_damaged_file_of_keys_lets_nobody_in_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{"id": 1}]}))
    with pytest.raises(KeysError, match="not readable"):
        KeyFile(path).grant("flv_00000000_" + "A" * 43)


@pytest.fixture
def issuer(tmp_path: Path) -> tuple[Ed25519PrivateKey, GatewaySettings]:
    private = Ed25519PrivateKey.generate()
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "issuer.pem").write_bytes(pem)
    settings = GatewaySettings(
        keys_file=tmp_path / "keys.json",
        jwt_public_key=str(tmp_path / "issuer.pem"),
        jwt_issuer="us",
        jwt_audience="gw",
    )
    return private, settings


def claims(**changed: Any) -> dict[str, Any]:
    soon = datetime.now(UTC) + timedelta(minutes=5)
    whole = {"iss": "us", "aud": "gw", "sub": "d1", "exp": soon, "topics": ["iot.readings"], "prefix": "d1", **changed}
    return {k: v for k, v in whole.items() if v is not None}


def test_a_token_of_the_issuer_says_what_its_bearer_may_publish(
    issuer: tuple[Ed25519PrivateKey, GatewaySettings],
) -> None:
    private, settings = issuer
    authenticate = authenticator(settings)
    token = jwt.encode(claims(), private, "EdDSA")
    assert authenticate(f"Bearer {token}") == Grant("jwt:d1", ("iot.readings",), "d1")


@pytest.mark.parametrize(
    "changed",
    [{"iss": "them"}, {"aud": "other"}, {"exp": datetime(2020, 1, 1, tzinfo=UTC)}, {"exp": None}, {"sub": None}, {"topics": None},
     {"topics": []}, {"topics": "iot.readings"}, {"prefix": 5}, {"aud": None}],
)  # fmt: skip
def test_any_other_token_is_nobody(issuer: tuple[Ed25519PrivateKey, GatewaySettings], changed: dict[str, Any]) -> None:
    private, settings = issuer
    assert authenticator(settings)(f"Bearer {jwt.encode(claims(**changed), private, 'EdDSA')}") is None


def test_tokens_of_others_and_unsigned_ones_are_nobody(issuer: tuple[Ed25519PrivateKey, GatewaySettings]) -> None:
    _, settings = issuer
    authenticate = authenticator(settings)
    assert authenticate(f"Bearer {jwt.encode(claims(), Ed25519PrivateKey.generate(), 'EdDSA')}") is None
    assert authenticate(f"Bearer {jwt.encode(claims(), None, 'none')}") is None
    public = Path(settings.jwt_public_key or "").read_text()
    with pytest.raises(jwt.InvalidKeyError):
        jwt.encode(claims(), public, "HS256")  # the classic confusion; the gateway allows no symmetric algorithm
    assert authenticate("Bearer a.b.c") is None


def test_half_configured_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="belong together"):
        authenticator(GatewaySettings(jwt_issuer="us"))
    with pytest.raises(SettingsError, match="jwt_public_key"):
        authenticator(GatewaySettings(jwt_issuer="us", jwt_audience="gw", jwt_public_key=str(tmp_path / "none.pem")))


def test_a_bucket_holds_one_second_and_fills_with_time() -> None:
    now = [0.0]
    rates = RateLimiter(10.0, lambda: now[0])
    a, b = Grant("a"), Grant("b", events_per_second=1000.0)
    assert rates.wait_seconds(a, 10) == 0.0
    assert rates.wait_seconds(a, 5) == pytest.approx(0.5)
    assert rates.wait_seconds(b, 1000) == 0.0
    now[0] = 0.5
    assert rates.wait_seconds(a, 5) == 0.0
    now[0] = 10.0
    assert rates.wait_seconds(a, 40) == 0.0  # larger than a burst: allowed when the bucket is full …
    now[0] = 12.9
    assert rates.wait_seconds(a, 1) > 0  # … and paid for afterwards
    assert RateLimiter(0.0).wait_seconds(a, 10**9) == 0.0
