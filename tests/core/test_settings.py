import math
from pathlib import Path

import pytest

from puna.settings import from_environment


@pytest.fixture(autouse=True)
def _no_file_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def test_defaults():
    settings = from_environment({})
    assert (settings.host, settings.port, settings.grpc_host) == ("127.0.0.1", 11434, "127.0.0.1:11435")
    assert (settings.keep_alive, settings.max_queue) == (300.0, 512)
    assert settings.models == Path.home() / ".ollama" / "models"


@pytest.mark.parametrize(
    ("text", "address"),
    [("", "127.0.0.1:11435"), ("0.0.0.0", "127.0.0.1:11435"), (":11500", "127.0.0.1:11501"), (":0", "127.0.0.1:0")],
)
def test_the_core_stands_beside_the_bridge_unless_told_otherwise(text, address):
    assert from_environment({"OLLAMA_HOST": text}).grpc_host == address
    assert from_environment({"OLLAMA_HOST": text, "PUNA_GRPC_HOST": "1.2.3.4:5"}).grpc_host == "1.2.3.4:5"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("0.0.0.0", "0.0.0.0", 11434),
        ("127.0.0.1:1234", "127.0.0.1", 1234),
        (":1234", "127.0.0.1", 1234),
        ("http://10.0.0.1", "10.0.0.1", 80),
        ("https://10.0.0.1", "10.0.0.1", 443),
        ("http://10.0.0.1:99/path", "10.0.0.1", 99),
        ("[::1]:5000", "::1", 5000),
        ("::1", "::1", 11434),
        ("127.0.0.1:99999", "127.0.0.1", 11434),
        (' "1.2.3.4:5" ', "1.2.3.4", 5),
    ],
)
def test_the_address_of_the_bridge(text, host, port):
    settings = from_environment({"OLLAMA_HOST": text})
    assert (settings.host, settings.port) == (host, port)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("90", 90), ("0", 0), ("-1", math.inf), ("-1m", math.inf), ("soon", 300), ("", 300)],
)
def test_keep_alive_is_a_duration_or_seconds(text, seconds):
    assert from_environment({"OLLAMA_KEEP_ALIVE": text}).keep_alive == seconds


def test_connections_live_for_ever_and_are_pinged_unless_told_otherwise():
    settings = from_environment({})
    assert (settings.keepalive_time, settings.keepalive_timeout, settings.drain_delay) == (60.0, 20.0, 0.0)
    assert (settings.connection_age, settings.connection_age_grace) == (math.inf, math.inf)
    settings = from_environment({"PUNA_KEEPALIVE_TIME": "0", "PUNA_CONNECTION_AGE": "1h", "PUNA_DRAIN_DELAY": "500ms"})
    assert (settings.keepalive_time, settings.connection_age, settings.drain_delay) == (math.inf, 3600.0, 0.5)


def test_a_load_timeout_of_zero_is_none():
    assert from_environment({"OLLAMA_LOAD_TIMEOUT": "0"}).load_timeout == math.inf


def test_text_that_is_no_boolean_counts_as_true():
    assert from_environment({"OLLAMA_NOPRUNE": "yes"}).no_prune
    assert not from_environment({"OLLAMA_NOPRUNE": "false"}).no_prune
    assert from_environment({"OLLAMA_GO_TEMPLATE": "0"}).go_template is False
    assert from_environment({}).go_template is None


def test_a_bad_number_falls_back():
    assert from_environment({"OLLAMA_MAX_QUEUE": "many"}).max_queue == 512


def test_the_environment_wins_over_the_file(tmp_path):
    (tmp_path / "own.toml").write_text('grpc_host = "127.0.0.1:1"\nbackend = "parrot"\n')
    settings = from_environment({"PUNA_GRPC_HOST": "127.0.0.1:2"}, tmp_path / "own.toml")
    assert (settings.grpc_host, settings.default_backend) == ("127.0.0.1:2", "parrot")


def test_lists_of_registries(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('allowed_registries = ["a", "b:5000"]\nregistry_peers = ["c"]\n')
    settings = from_environment({"PUNA_REGISTRY_PEERS": "d, e", "PUNA_REGISTRY_REALMS": "a=f"}, file)
    assert settings.allowed_registries == ("a", "b:5000")
    assert (settings.registry_peers, settings.registry_realms) == (("d", "e"), ("a=f",))
    file.write_text('allowed_registries = "a"')
    with pytest.raises(ValueError, match="allowed_registries"):
        from_environment({}, file)


def test_a_named_file_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        from_environment({}, tmp_path / "none.toml")


def test_types_of_the_cache_may_be_written_large():
    assert from_environment({"OLLAMA_KV_CACHE_TYPE": "Q8_0"}).kv_cache_type == "q8_0"


def test_options_of_backends_are_tables_of_the_file(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('[backends.ctransformers]\nlib = "avx2"\n')
    assert from_environment({}, file).backend_options == {"ctransformers": {"lib": "avx2"}}
    file.write_text('[backends]\nctransformers = "avx2"\n')
    with pytest.raises(ValueError, match=r"own.toml:2: backends.ctransformers: it must be a table"):
        from_environment({}, file)


@pytest.mark.parametrize(
    ("text", "kernels"), [("", None), ("0", False), ("false", False), ("1", True), ("exact", "exact")]
)
def test_kernels_are_switched_in_the_environment(text, kernels):
    assert from_environment({"PUNA_KERNELS": text}).kernels == kernels


def test_a_word_that_would_keep_more_than_meant_ends_the_start():
    assert from_environment({}).records_content == "all"
    assert from_environment({"PUNA_RECORDS_CONTENT": "none"}).records_content == "none"
    with pytest.raises(ValueError, match="PUNA_RECORDS_CONTENT is 'nothing'; it may be all, prompts, answers, none"):
        from_environment({"PUNA_RECORDS_CONTENT": "nothing"})
