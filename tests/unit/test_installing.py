"""uv finds packages where pip is told to find them, or pip installs them itself."""

import pytest
from support.tools import load_tool

environment = load_tool("environment")


def test_what_pip_is_set_to_becomes_options_and_variables_of_uv():
    listed = "\n".join(
        [
            "global.extra-index-url='file:///one file:///two'",
            "global.find-links='/of/the/file'",
            "global.cert='/etc/ca.crt'",
            "global.timeout='180'",
            "global.disable-pip-version-check='1'",
            "install.constraint='/etc/constraints.txt'",
            "freeze.all='1'",
            ":env:.find-links='/of/a/variable'",
        ]
    )
    options, variables = environment.uv_settings(listed)
    assert options == [
        *("--index", "file:///one", "--index", "file:///two"),
        *("--find-links", "/of/a/variable"),
        *("--constraint", "/etc/constraints.txt"),
    ]
    assert variables == {"SSL_CERT_FILE": "/etc/ca.crt", "UV_HTTP_TIMEOUT": "180"}


def test_an_index_in_place_of_the_public_one():
    options, _ = environment.uv_settings("global.index-url='https://packages.example/simple'\n")
    assert options == ["--default-index", "https://packages.example/simple"]


def test_without_settings_there_is_nothing_to_say():
    assert environment.uv_settings("") == ([], {})


@pytest.mark.parametrize("line", ["global.client-cert='/a.pem'", "install.no-binary=':all:'"])
def test_what_uv_does_not_know_leaves_the_work_to_pip(line):
    assert environment.uv_settings(line) is None
