"""What the tests of the gateway share."""

from __future__ import annotations

import pytest

from tests.support.certificates import Certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if not Certificates.possible():
        pytest.skip("no openssl here to make certificates with")
    return Certificates(tmp_path_factory.mktemp("certificates"))
