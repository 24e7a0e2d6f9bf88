import base64
import json
import logging

import pytest

from puna.models.registry.credentials import Credential, Keyring, registry_of
from puna.models.registry.origin import Origin

ME = Credential(username="me", password="se:cret")


def docker(**auths):
    return Keyring(docker_text=json.dumps({"auths": {key.replace("__", "."): value for key, value in auths.items()}}))


def https(netloc):
    return Origin.of(f"https://{netloc}")


def encoded(text):
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"auth": encoded("me:se:cret")}, ME),
        ({"username": "me", "password": "se:cret"}, ME),
        ({"identitytoken": "t", "auth": encoded("<token>:")}, Credential(identity_token="t")),
        ({"registrytoken": "t"}, Credential(token="t")),
        ({"auth": "%%%"}, None),
        ({}, None),
    ],
)
async def test_entries_of_docker(entry, found):
    assert await docker(r__example=entry).find(https("r.example")) == found


@pytest.mark.parametrize(
    "key", ["r.example:5000", "https://r.example:5000", "https://R.example:5000/v1/", "r.example:5000/some/path"]
)
def test_keys_of_docker(key):
    assert registry_of(key) == Origin("https", "r.example", 5000)


async def test_nobody_else_gets_them():
    assert await docker(r__example={"auth": encoded("me:x")}).find(https("evil.example")) is None
    assert await Keyring(host="r.example", own=ME).find(https("evil.example")) is None


async def test_ones_own_come_first(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {"r": {"registrytoken": "file"}, "s": {"registrytoken": "file"}}}))
    text = json.dumps({"auths": {"r": {"registrytoken": "text"}}})
    keyring = Keyring(host="q", own=ME, docker_text=text, docker_file=file)
    assert [await keyring.find(https(host)) for host in ("q", "r", "s", "t")] == [
        ME,
        Credential(token="text"),
        Credential(token="file"),
        None,
    ]


async def test_a_bad_configuration_is_passed_over(tmp_path, caplog):
    (tmp_path / "config.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert await Keyring(docker_text="[]", docker_file=tmp_path / "config.json").find(https("r")) is None
        assert await Keyring(docker_file=tmp_path / "none.json").find(https("r")) is None
        assert await Keyring(docker_file=tmp_path).find(https("r")) is None
    assert "not JSON" in caplog.text


class TestHelpers:
    @pytest.fixture
    def helper(self, tmp_path, monkeypatch):
        def write(script):
            path = tmp_path / "docker-credential-mine"
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
            monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

        return write

    @pytest.mark.parametrize("config", [{"credHelpers": {"r": "mine"}}, {"credsStore": "mine"}])
    async def test_helpers_are_asked(self, helper, config):
        helper('read host; [ "$1 $host" = "get r" ] && echo \'{"Username": "me", "Secret": "se:cret"}\'')
        assert await Keyring(docker_text=json.dumps(config)).find(https("r")) == ME

    async def test_a_token(self, helper):
        helper('echo \'{"Username": "<token>", "Secret": "t"}\'')
        assert await Keyring(docker_text='{"credsStore": "mine"}').find(https("r")) == Credential(identity_token="t")

    @pytest.mark.parametrize("script", ["echo 'credentials not found'; exit 1", "echo nonsense", "echo '{}'"])
    async def test_helpers_that_know_nothing(self, helper, script):
        helper(script)
        assert await Keyring(docker_text='{"credsStore": "mine"}').find(https("r")) is None

    @pytest.mark.parametrize("name", ["missing", "../mine"])
    async def test_helpers_that_are_none(self, name, caplog):
        assert await Keyring(docker_text=json.dumps({"credsStore": name})).find(https("r")) is None
        assert "helper" in caplog.text or "docker-credential" in caplog.text
