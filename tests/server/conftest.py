"""One server for every test of this folder."""

import pytest
from support.server import rule_server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with rule_server(tmp_path_factory.mktemp("comfyui")) as server:
        yield server
