"""Who is calling is known from the token, or nobody comes in."""

from __future__ import annotations

import hashlib

import pytest
from wavegate_server import errors
from wavegate_server.rpc.auth import ANONYMOUS, Authenticator, Token, parse_tokens, peer_name

ALICE = "alice-token-0123456789"
BOB = "bob-token-0123456789"


def authenticator(text: str) -> Authenticator:
    tokens = parse_tokens(text)
    return Authenticator(lambda: tokens)


def bearer(token: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "test"), ("authorization", f"Bearer {token}")]


def test_a_token_names_its_caller() -> None:
    auth = authenticator(f"alice:{ALICE}\nbob:{BOB}\n")
    assert auth.check(bearer(ALICE)) == "alice"
    assert auth.check(bearer(BOB)) == "bob"


def test_a_hashed_token_is_as_good() -> None:
    auth = authenticator(f"alice:sha256:{hashlib.sha256(ALICE.encode()).hexdigest().upper()}")
    assert auth.check(bearer(ALICE)) == "alice"


def test_a_caller_may_have_two_tokens_while_one_replaces_the_other() -> None:
    auth = authenticator(f"# old and new\nalice:{ALICE}\n\nalice:{BOB}")
    assert auth.check(bearer(ALICE)) == auth.check(bearer(BOB)) == "alice"


def test_the_scheme_is_case_insensitive() -> None:
    assert authenticator(f"alice:{ALICE}").check([("authorization", f"bearer  {ALICE} ")]) == "alice"


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param([], id="none"),
        pytest.param([("authorization", ALICE)], id="no scheme"),
        pytest.param([("authorization", "Bearer ")], id="empty"),
        pytest.param([("authorization", f"Bearer {ALICE}")] * 2, id="twice"),
        pytest.param([("authorization", f"Basic {ALICE}")], id="another scheme"),
        pytest.param(bearer(ALICE[:-1]), id="shorter"),
        pytest.param(bearer(ALICE + "0"), id="longer"),
        pytest.param(bearer(hashlib.sha256(ALICE.encode()).hexdigest()), id="its hash"),
        pytest.param([("authorization", b"Bearer " + ALICE.encode())], id="bytes"),
        pytest.param(bearer("wrong-token-0123456789")[1:] + bearer(ALICE)[1:], id="two of them"),
        pytest.param([("authorization-bin", f"Bearer {ALICE}")], id="another key"),
    ],
)
def test_anything_else_is_refused(metadata: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises(errors.Unauthenticated) as caught:
        authenticator(f"alice:{ALICE}").check(metadata)
    assert ALICE not in str(caught.value)


def test_without_tokens_the_peer_says_who_it_is() -> None:
    assert Authenticator().check([]) is None
    assert peer_name({}) == ANONYMOUS
    assert peer_name({"x509_common_name": [b"alice.example"]}) == "alice.example"


def test_changed_tokens_hold_from_the_next_call_on() -> None:
    current = parse_tokens(f"alice:{ALICE}")
    auth = Authenticator(lambda: current)
    assert auth.check(bearer(ALICE)) == "alice"
    current = parse_tokens(f"bob:{BOB}")
    with pytest.raises(errors.Unauthenticated):
        auth.check(bearer(ALICE))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no token"),
        ("# only words\n", "holds no token"),
        ("alice", "line 1: must be NAME:TOKEN"),
        (f"\nal ice:{ALICE}", "line 2: must be NAME:TOKEN"),
        ("alice:short", "line 1: a token is at least 16"),
        ("alice:sha256:abc", "line 1: sha256: must be followed by 64 hex digits"),
        ("alice:töken-0123456789abc", "line 1: a token is"),
    ],
)
def test_a_tokens_file_that_cannot_be_right_is_refused_by_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_tokens(text)
    assert "short" not in str(caught.value)


def test_a_token_is_not_kept_in_clear() -> None:
    (token,) = parse_tokens(f"alice:{ALICE}")
    assert isinstance(token, Token)
    assert ALICE not in repr(token)
    assert ALICE.encode() not in token.digest
