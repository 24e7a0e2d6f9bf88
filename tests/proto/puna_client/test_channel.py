import json
from pathlib import Path

from puna_client import channel


def test_the_service_config_is_that_of_all_languages():
    config = Path(__file__).parents[3] / "proto/service_config.json"
    assert config.read_text() == channel.SERVICE_CONFIG
    assert json.loads(channel.SERVICE_CONFIG)["methodConfig"]


def test_options_of_the_caller_count():
    given = ("grpc.max_receive_message_length", 5)
    assert dict(channel.options("{}", [given]))["grpc.max_receive_message_length"] == 5
    assert dict(channel.options("{}", ()))["grpc.service_config"] == "{}"


def test_a_key_is_a_bearer_token():
    assert channel.metadata("secret") == (("authorization", "Bearer secret"),)
    assert channel.metadata(None) == ()


def test_tls_is_off_unless_it_is_asked_for():
    assert channel.credentials(False) is None
    assert channel.credentials(True) is not None
    made = channel.tls()
    assert channel.credentials(made) is made
