"""From an Authorization header to what its bearer may do: API keys and, where configured, JWTs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt

from fluvial.errors import SettingsError
from fluvial.producers.gateway.keys import ANYONE, Grant, KeyFile
from fluvial.settings import GatewaySettings

ALGORITHMS = ("RS256", "ES256", "EdDSA")
SCHEME = "bearer "
LONGEST_CREDENTIAL = 8192


def authenticator(settings: GatewaySettings) -> Callable[[str | None], Grant | None]:
    """Return the check of Authorization headers that the settings ask for.

    Raises:
        SettingsError: the settings of JWTs are incomplete, or their public key cannot be read.
    """
    if settings.auth == "none":
        return lambda header: ANYONE
    keys = KeyFile(settings.keys_file)
    tokens = _token_check(settings)

    def authenticate(header: str | None) -> Grant | None:
        if header is None or header[: len(SCHEME)].lower() != SCHEME or len(header) > LONGEST_CREDENTIAL:
            return None
        credential = header[len(SCHEME) :].strip()
        if credential.count(".") == 2 and tokens is not None:
            return tokens(credential)
        return keys.grant(credential)

    return authenticate


def _token_check(settings: GatewaySettings) -> Callable[[str], Grant | None] | None:
    given = (settings.jwt_public_key, settings.jwt_issuer, settings.jwt_audience)
    if not any(given):
        return None
    path, issuer, audience = given
    if path is None or issuer is None or audience is None:
        raise SettingsError(
            "gateway.jwt_public_key, jwt_issuer and jwt_audience belong together", hint="set all three, or none"
        )
    try:
        public_key = Path(path).read_text()
    except OSError as e:
        raise SettingsError(f"gateway.jwt_public_key: {e}", hint="name a readable PEM file") from None

    def check(token: str) -> Grant | None:
        try:
            claims = jwt.decode(
                token, public_key, list(ALGORITHMS), issuer=issuer, audience=audience,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )  # fmt: skip
        except jwt.PyJWTError:
            return None
        return _grant(claims)

    return check


def _grant(claims: dict[str, Any]) -> Grant | None:
    """Claims ``topics`` (a list; needed) and ``prefix`` say what the bearer may publish."""
    topics, prefix = claims.get("topics"), claims.get("prefix", "")
    if not isinstance(topics, list) or not topics or not isinstance(prefix, str):
        return None
    return Grant(f"jwt:{claims['sub']}", tuple(str(t) for t in topics), prefix)
