"""Registries that want to know who asks."""

import base64
import stat

import pytest
from aiohttp import web
from tests.registry.front import Answer

from puna.errors import TransferError
from puna.models.registry.authorization import Authorization, Identity, identity_of
from puna.models.registry.credentials import Credential, Keyring
from puna.models.registry.ssh_key import loads
from puna.settings import Settings, from_environment

ME = "Basic " + base64.b64encode(b"me:secret").decode()


def known(host, **what):
    """Credentials for a registry in clear, which the configuration must say."""
    return Identity(keyring=Keyring(host=f"http://{host}", own=Credential(**what)))


@pytest.fixture
def grants(front):
    """What the token server was asked; it gives the token to whom `allowed` says."""
    asked = []

    def grant(request):
        asked.append(request)
        if not grant.allowed(request):
            return web.json_response({"details": "no"}, status=401)
        return web.json_response({grant.key: "good"})

    grant.allowed = lambda request: True
    grant.key = "token"
    grant.asked = asked
    front.tokens = {"good"}
    front.grant = grant
    return grant


async def test_a_token_is_fetched_once_for_a_pull(pushed, side, front, grants):
    two = side()
    await two.pull(pushed.name)
    assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
    (asked,) = grants.asked
    repository = pushed.name.partition("/")[2].partition(":")[0]
    assert asked.query_string == f"scope=repository%3A{repository}%3Apull&service=tests".replace("%3A", ":").replace(
        "%2F", "/"
    )
    assert "Authorization" not in asked.headers


async def test_a_token_for_a_push(side, front, name, grants):
    one = side()
    one.make(name)
    await one.push(name)
    assert len(grants.asked) == 1
    assert front.asked("PUT", "/manifests/")[-1].headers["Authorization"] == "Bearer good"


async def test_a_token_that_runs_out_is_renewed(pushed, side, front, grants):
    front.on(Answer(401, "", {"WWW-Authenticate": f'Bearer realm="http://{front.host}/token"'}), method="HEAD")
    two = side()
    await two.pull(pushed.name)
    assert len(grants.asked) == 2


async def test_a_token_that_is_not_taken(pushed, side, front, grants):
    front.tokens = {"another"}
    with pytest.raises(TransferError, match=r"^pull model manifest: unauthorized: access denied$"):
        await side().pull(pushed.name)


async def test_a_token_server_that_refuses(pushed, side, front, grants):
    grants.allowed = lambda request: False
    with pytest.raises(TransferError, match=r"^pull model manifest: unauthorized: access denied$"):
        await side().pull(pushed.name)


async def test_who_knows_the_user_gets_the_token(pushed, side, front, grants):
    grants.allowed = lambda request: request.headers.get("Authorization") == ME
    grants.key = "access_token"
    await side(identity=known(front.host, username="me", password="secret")).pull(pushed.name)
    assert len(grants.asked) == 1


async def test_credentials_go_to_no_other_registry(pushed, side, front, grants):
    grants.allowed = lambda request: "Authorization" in request.headers
    with pytest.raises(TransferError, match="unauthorized"):
        await side(identity=known("127.0.0.1:1", username="me", password="secret")).pull(pushed.name)


async def test_an_identity_token_buys_tokens(pushed, side, front, grants):
    forms = []

    async def grant(request):
        forms.append((request.method, dict(await request.post())))
        return web.json_response({"access_token": "good"})

    front.grant = grant
    await side(identity=known(front.host, identity_token="mine")).pull(pushed.name)
    repository = pushed.name.partition("/")[2].partition(":")[0]
    form = {"grant_type": "refresh_token", "refresh_token": "mine", "service": "tests", "client_id": "puna"}
    assert forms == [("POST", form | {"scope": f"repository:{repository}:pull"})]


async def test_a_token_at_hand_is_shown(pushed, side, front, grants):
    await side(identity=known(front.host, token="good")).pull(pushed.name)
    assert grants.asked == []


async def test_the_token_server_may_be_elsewhere(pushed, side, front, grants, tmp_path):
    front.realm = f"http://{front.other}/token"
    await side(identity=Identity(key_file=tmp_path / "key")).pull(pushed.name)
    assert [each.host for each in grants.asked] == [front.other]
    assert not (tmp_path / "key").exists()  # a signature is for one's own registry


async def test_requests_of_tokens_are_signed_where_the_registry_itself_gives_them(pushed, side, grants, tmp_path):
    key_file = tmp_path / "home/.ollama/id_ed25519"
    await side(identity=Identity(key_file=key_file)).pull(pushed.name)
    (asked,) = grants.asked
    key = loads(key_file.read_text())
    assert list(asked.query) == ["nonce", "scope", "service", "ts"]
    assert asked.headers["Authorization"].startswith(key.public_text + ":")
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert key_file.with_suffix(".pub").read_text() == f"ssh-ed25519 {key.public_text}\n"


async def test_who_does_not_know_signatures_is_asked_without(pushed, side, grants, tmp_path):
    grants.allowed = lambda request: "Authorization" not in request.headers
    await side(identity=Identity(key_file=tmp_path / "key")).pull(pushed.name)
    assert len(grants.asked) == 2


async def test_basic_authentication(pushed, side, front):
    front.basic = ME
    two = side(identity=known(front.host, username="me", password="secret"))
    await two.pull(pushed.name)
    await two.push(pushed.name)
    for other in (None, known(front.host, username="me", password="wrong")):
        with pytest.raises(TransferError, match="unauthorized: access denied"):
            await side(identity=other).pull(pushed.name)


async def test_realms_in_the_clear_are_not_asked_by_a_registry_that_is_not(front):
    authorization = Authorization(Identity())
    with pytest.raises(TransferError, match=r"^realm http://a/t is not safe to ask from https://r$"):
        await authorization.answer(['Bearer realm="http://a/t"'], "https://r/v2/", "", None)


def test_the_settings_say_who_one_is(tmp_path):
    settings = from_environment(
        {
            "PUNA_REGISTRY_HOST": "r:5000",
            "PUNA_REGISTRY_USERNAME": "me",
            "PUNA_REGISTRY_PASSWORD": "sesame",
            "DOCKER_CONFIG": str(tmp_path),
        }
    )
    keyring = identity_of(settings).keyring
    assert (keyring.host, keyring.own) == ("r:5000", Credential(username="me", password="sesame"))
    assert keyring.docker_file == tmp_path / "config.json"
    assert "sesame" not in repr(settings)


def test_credentials_without_a_registry_are_named(caplog):
    keyring = identity_of(Settings(registry_username="me", registry_password="secret")).keyring
    assert keyring.host == ""
    assert "PUNA_REGISTRY_HOST" in caplog.text
