"""Who is calling: call metadata -> the caller's name.

The interceptor of `rpc/trace.py` asks here before the first message of a call is read; what fails is refused
with CALLER_UNAUTHENTICATED, and so is everything when the check itself cannot be made. Sessions belong to the
caller that opened them: another caller cannot see them.

- With tokens: `authorization: Bearer TOKEN`, and the caller is the name beside that token.
- Without tokens, with client certificates: the certificate's common name.
- Without either: everybody is `anonymous`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wavegate_server import errors

ANONYMOUS: Final = "anonymous"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_SHA256 = re.compile(r"sha256:([0-9a-fA-F]{64})")
MIN_TOKEN_CHARS: Final = 16
"""Shorter tokens can be guessed."""


@dataclass(frozen=True, slots=True)
class Token:
    """A caller's name and the SHA-256 of a token that proves it."""

    caller: str
    digest: bytes = field(repr=False)


def parse_tokens(text: str) -> tuple[Token, ...]:
    """Read a tokens file: one `name:token` or `name:sha256:HEX` a line; `#` begins a comment line.

    A name may stand on several lines, so that its token can be changed without a gap. Raises `ValueError` with
    the line's number and never the token.
    """
    tokens = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, secret = line.partition(":")
        name, secret = name.strip(), secret.strip()
        if not colon or not _NAME.fullmatch(name):
            raise ValueError(f"line {number}: must be NAME:TOKEN, with a name of letters, digits and '_.-'")
        if secret.startswith("sha256:"):
            match = _SHA256.fullmatch(secret)
            if match is None:
                raise ValueError(f"line {number}: sha256: must be followed by 64 hex digits")
            digest = bytes.fromhex(match[1])
        elif len(secret) < MIN_TOKEN_CHARS or not secret.isascii() or not secret.isprintable():
            raise ValueError(
                f"line {number}: a token is at least {MIN_TOKEN_CHARS} printable ASCII characters"
            )
        else:
            digest = hashlib.sha256(secret.encode()).digest()
        tokens.append(Token(name, digest))
    if not tokens:
        raise ValueError("it holds no token, so nobody could call")
    return tuple(tokens)


class Authenticator:
    """Tells callers apart. `tokens` is asked at each call, so that a changed file is seen; None: no tokens."""

    def __init__(self, tokens: Callable[[], Sequence[Token]] | None = None) -> None:
        self._tokens = tokens

    def __repr__(self) -> str:
        return f"<Authenticator {'tokens' if self._tokens else 'open'}>"

    def check(self, metadata: Sequence[tuple[str, str | bytes]]) -> str | None:
        """The name of the caller with this call metadata; None where only `peer_name` can say.

        Raises `errors.Unauthenticated`.
        """
        if self._tokens is None:
            return None
        values = [value for key, value in metadata if key == "authorization"]
        if not values:
            raise errors.Unauthenticated(
                "this gateway needs a token: send metadata 'authorization: Bearer TOKEN'"
            )
        value = values[0]
        scheme, _, presented = (value if isinstance(value, str) else "").partition(" ")
        if len(values) > 1 or scheme.lower() != "bearer" or not presented.strip():
            raise errors.Unauthenticated("the authorization metadata must be, once, 'Bearer TOKEN'")
        digest = hashlib.sha256(presented.strip().encode()).digest()
        caller = None
        # All are compared, in constant time each: how long it takes tells nothing of how near a guess was.
        for token in self._tokens():
            if hmac.compare_digest(token.digest, digest):
                caller = token.caller
        if caller is None:
            raise errors.Unauthenticated("the token is not known here; check it, or ask for a new one")
        return caller


def peer_name(auth_context: Mapping[str, Any]) -> str:
    """The caller's name where there are no tokens: the common name of its certificate, else `anonymous`."""
    names = auth_context.get("x509_common_name") or ()
    for raw in names:
        name = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
        if name:
            return name
    return ANONYMOUS
