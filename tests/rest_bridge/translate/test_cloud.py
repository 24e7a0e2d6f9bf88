import pytest

from puna.go.json_scanner import parse
from puna_rest.translate.cloud import names_cloud, names_cloud_model


@pytest.mark.parametrize(
    ("name", "cloud"),
    [
        ("m:cloud", True),
        (" m:CLOUD ", True),
        ("m:20b-cloud", True),
        ("a/m:cloud", True),
        ("m:20b:cloud", True),
        ("m", False),
        ("m-cloud", False),
        ("cloud", False),
        (":cloud", False),
        ("m:local", False),
        ("m:cloud:local", False),
        ("m:local:cloud", False),
        ("host:5000/x-cloud", False),
    ],
)
def test_names(name, cloud):
    assert names_cloud(name) is cloud


@pytest.mark.parametrize(
    ("body", "cloud"),
    [
        (b'{"model":"m:cloud","messages":3}', True),
        (b'{"MODEL":"m:cloud"}', False),
        (b'{"model":3}', False),
        (b'["m:cloud"]', False),
    ],
)
def test_bodies(body, cloud):
    assert names_cloud_model(parse(body)) is cloud
