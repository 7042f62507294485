import pytest

from tests.components.fetching.hostile_server import serving


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server
