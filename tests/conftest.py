"""Fixtures shared by every test: the real corpora beside the checkout, when they are there."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real corpora (../shared/data) are not beside this checkout")
    return SHARED_DATA
