"""Registries that send this server to other places, and what such a place gets to see."""

import base64

import pytest
from aiohttp import web
from tests.registry.peer import LAYER, manifest, peering, to

from puna.errors import TransferError
from puna.models.registry.authorization import Identity, identity_of
from puna.models.registry.credentials import Credential, Keyring
from puna.models.registry.origin import Origin, Pattern
from puna.models.registry.policy import Policy
from puna.models.registry.registries import Registries
from puna.settings import from_environment

SECRET = "Basic " + base64.b64encode(b"me:secret").decode()
REFUSED = "the registry refers to "


@pytest.fixture
async def evil():
    async with peering() as peer:
        yield peer


@pytest.fixture
async def victims():
    """Servers on this machine that the registry may not send the server to."""
    async with peering() as one, peering("127.0.0.2") as two, peering("::1") as three:
        yield one, two, three


def ways(victims):
    """Yield every way to write where they are."""
    one, two, three = victims
    for scheme in ("http", "https"):
        yield from (f"{scheme}://{each.host}/x" for each in victims)
        for host in ("localhost", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]"):
            yield f"{scheme}://{host}:{one.port}/x"
        yield f"{scheme}://127.0.0.2:{two.port}\\@example.com/x"
        yield f"{scheme}://example.com@127.0.0.2:{two.port}/x"
        yield f"{scheme}://localhost.:{three.port}/x"


def name_on(peer, model="m"):
    return f"{peer.host}/tests/{model}:v1"


def authorizations(asked):
    return [each.headers.get("Authorization", "") for each in asked]


class TestPull:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_manifest_that_is_elsewhere(self, evil, victims, side, status):
        for url in ways(victims):
            evil.on("GET /v2/", to(url, status))
            with pytest.raises(TransferError):
                await side().pull(name_on(evil))
        assert [each.asked for each in victims] == [[], [], []]

    async def test_the_error_says_why(self, evil, victims, side):
        evil.on("GET /v2/", to(f"{victims[1].url}/x"))
        with pytest.raises(TransferError, match=rf"^pull model manifest: {REFUSED}.* PUNA_REGISTRY_PEERS"):
            await side().pull(name_on(evil))

    @pytest.mark.parametrize("method", ["HEAD", "GET"])
    async def test_a_blob_that_is_elsewhere(self, evil, victims, side, method):
        evil.on("GET /v2/tests/m/manifests/", manifest(10))
        evil.on("HEAD /v2/", {"headers": {"Content-Length": "10"}})
        for url in ways(victims):
            evil.on(f"{method} /v2/tests/m/blobs", to(url))
            evil.answers = dict(reversed(evil.answers.items()))
            with pytest.raises(TransferError):
                await side().pull(name_on(evil))
            evil.answers = dict(reversed(evil.answers.items()))
        assert [each.asked for each in victims] == [[], [], []]

    async def test_a_peer_that_the_operator_names_gets_no_credentials(self, evil, victims, side):
        one = side(identity=known(evil))
        registries = Registries(one.store, known(evil), one.registries._limits, peers(victims[1].host))
        one.registries = registries
        evil.on("GET /v2/", to(f"{victims[1].url}/x"))
        victims[1].on("GET /x", {"status": 418, "text": "here"})
        with pytest.raises(TransferError, match="418: here"):
            await one.pull(name_on(evil))
        assert authorizations(victims[1].asked) == [""]

    async def test_circles_end(self, evil, side):
        evil.on("GET /v2/", to("/v2/again"))
        with pytest.raises(TransferError, match="maximum redirects exceeded"):
            await side().pull(name_on(evil))
        assert len(evil.asked) == 11


class TestPush:
    @pytest.mark.parametrize("header", ["Location", "Docker-Upload-Location"])
    async def test_an_upload_that_goes_on_elsewhere(self, evil, victims, side, header):
        one = side()
        one.make(name_on(evil), size=100)
        for url in ways(victims):
            evil.on("POST /v2/", {"status": 202, "headers": {header: url}})
            with pytest.raises(TransferError):
                await one.push(name_on(evil))
        assert [each.asked for each in victims] == [[], [], []]

    @pytest.mark.parametrize("header", ["Location", "Docker-Upload-Location"])
    async def test_parts_that_go_elsewhere(self, evil, victims, side, header):
        one = side()
        one.make(name_on(evil), size=100)
        evil.on("POST /v2/", {"status": 202, "headers": {"Location": "/v2/session"}})
        for url in ways(victims):
            headers = {"Location": "/storage"} | {header: url}
            evil.on("PATCH /v2/", {"status": 307, "headers": headers})
            with pytest.raises(TransferError):
                await one.push(name_on(evil))
        assert [each.asked for each in victims] == [[], [], []]

    @pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
    async def test_redirects(self, evil, victims, side, method):
        one = side()
        one.make(name_on(evil), size=100)
        if method == "PUT":
            evil.on("HEAD /v2/", {"status": 200})
        evil.on(f"{method} /v2/", to(f"{victims[0].url}/x"))
        with pytest.raises(TransferError, match=REFUSED):
            await one.push(name_on(evil))
        assert victims[0].asked == []


def known(peer, scheme="http", **what):
    own = Credential(**(what or {"username": "me", "password": "secret"}))
    return Identity(keyring=Keyring(host=f"{scheme}://{peer.host}", own=own))


def peers(*hosts):
    return Policy(peers=tuple(map(Pattern.parse, hosts)))


def bearer(realm):
    return {"status": 401, "headers": {"WWW-Authenticate": f'Bearer realm="{realm}",service="s",scope="x"'}}


class TestCredentials:
    @pytest.mark.parametrize("what", [{"username": "me", "password": "secret"}, {"identity_token": "secret"}])
    @pytest.mark.parametrize("challenge", ["basic", "bearer"])
    async def test_a_password_for_https_is_not_sent_in_clear(self, evil, side, challenge, what):
        evil.on("GET /v2/", bearer(f"{evil.url}/token"))
        if challenge == "basic":
            evil.on("GET /v2/", {"status": 401, "headers": {"WWW-Authenticate": 'Basic realm="x"'}})
        evil.on("GET /token", {"text": '{"token": "for-all"}'})
        with pytest.raises(TransferError, match="unauthorized"):
            await side(identity=known(evil, "https", **what)).pull(name_on(evil))
        assert set(authorizations(evil.asked)) <= {"", "Bearer for-all"}
        assert not any(b"secret" in each.body for each in evil.asked)

    @pytest.mark.parametrize("docker", [True, False])
    async def test_the_configuration_says_http(self, evil, side, docker):
        evil.on("GET /v2/", {"status": 401, "headers": {"WWW-Authenticate": 'Basic realm="x"'}})
        if docker:
            text = f'{{"auths": {{"{evil.url}": {{"username": "me", "password": "secret"}}}}}}'
            identity = Identity(keyring=Keyring(docker_text=text))
        else:
            identity = known(evil)
        with pytest.raises(TransferError, match="unauthorized"):
            await side(identity=identity).pull(name_on(evil))
        assert authorizations(evil.asked) == ["", SECRET]

    @pytest.mark.parametrize("what", [{"username": "me", "password": "secret"}, {"identity_token": "secret"}])
    async def test_a_token_server_on_another_port_gets_none(self, evil, victims, side, what):
        evil.on("GET /v2/", bearer(f"{victims[0].url}/token"))
        victims[0].on("GET /token", {"text": '{"token": "for-all"}'})
        one = side()
        one.registries = Registries(one.store, known(evil, **what), one.registries._limits, peers(victims[0].host))
        with pytest.raises(TransferError, match="unauthorized"):
            await one.pull(name_on(evil))
        assert [(each.method, each.headers.get("Authorization"), each.body) for each in victims[0].asked] == [
            ("GET", None, b"")
        ]

    async def test_a_token_server_elsewhere_is_not_asked(self, evil, victims, side, tmp_path):
        identity = Identity(keyring=known(evil).keyring, key_file=tmp_path / "key")
        for url in ways(victims):
            evil.on("GET /v2/", bearer(url.replace("\\", "\\\\")))
            with pytest.raises(TransferError):
                await side(identity=identity).pull(name_on(evil))
        assert [each.asked for each in victims] == [[], [], []]
        assert not (tmp_path / "key").exists()

    async def test_a_token_server_that_redirects(self, evil, victims, side):
        evil.on("GET /v2/", bearer(f"{evil.url}/token"))
        evil.on("GET /token", to(f"{victims[0].url}/x"))
        with pytest.raises(TransferError, match="307"):
            await side(identity=known(evil)).pull(name_on(evil))
        assert victims[0].asked == []

    async def test_tokens_go_to_the_registry_alone(self, evil, victims, side):
        one = side()
        one.registries = Registries(
            one.store, known(evil, token="secret"), one.registries._limits, peers(victims[0].host)
        )
        evil.on("GET /v2/", bearer(f"{evil.url}/token"))

        async def answer(request):
            if request.headers.get("Authorization") == "Bearer secret":
                return web.Response(**to(f"{victims[0].url}/x"))
            return web.Response(**bearer(f"{evil.url}/token"))

        evil.on("GET /v2/", answer)
        with pytest.raises(TransferError, match="file does not exist"):
            await one.pull(name_on(evil))
        assert authorizations(victims[0].asked) == [""]

    @pytest.mark.parametrize(
        ("registry", "realm", "shared"),
        [
            ("https://registry-1.docker.io", "https://auth.docker.io", True),
            ("https://registry.gitlab.com", "https://gitlab.com", True),
            ("https://r:5000", "https://auth.corp", True),
            ("https://r", "https://r", True),
            ("https://registry-1.docker.io", "https://auth.docker.io:444", False),
            ("http://registry-1.docker.io", "https://auth.docker.io", False),
            ("https://evil", "https://auth.corp", False),
            ("https://r:5000", "https://r:5001", False),
            ("http://r:5000", "https://r:5000", False),
        ],
    )
    def test_token_servers_that_see_credentials(self, registry, realm, shared):
        settings = from_environment({"PUNA_REGISTRY_REALMS": "r:5000=auth.corp,evil=http://auth.corp,x"})
        assert identity_of(settings).shares(Origin.of(registry), Origin.of(realm)) is shared

    @pytest.mark.parametrize(
        ("key", "origin"),
        [
            ("https://index.docker.io/v1/", "https://registry-1.docker.io"),
            ("docker.io", "https://docker.io"),
            ("R.example", "https://r.example"),
            ("r.example:443", "https://r.example"),
            ("https://r.example/v2/", "https://r.example"),
            ("http://r.example", "http://r.example"),
            ("http://r.example:5000/v1/", "http://r.example:5000"),
        ],
    )
    async def test_keys_of_docker_are_for_one_origin(self, key, origin):
        keyring = Keyring(docker_text=f'{{"auths": {{"{key}": {{"registrytoken": "t"}}}}}}')
        everywhere = {
            f"{scheme}://{host}{port}"
            for scheme in ("http", "https")
            for host in ("r.example", "docker.io", "registry-1.docker.io", "index.docker.io", "example")
            for port in ("", ":80", ":443", ":5000")
        }
        found = {Origin.of(each) for each in everywhere if await keyring.find(Origin.of(each))}
        hub = {f"https://{each}" for each in ("docker.io", "registry-1.docker.io", "index.docker.io")}
        assert found == {Origin.of(each) for each in (hub if origin in hub else {origin})}


async def test_digests_are_as_ever(evil, side):
    """A registry that answers all by itself is used as before."""
    evil.on("GET /v2/tests/m/manifests/", manifest(10))
    evil.on("HEAD /v2/", {"headers": {"Content-Length": "10"}})
    evil.on("GET /v2/tests/m/blobs", {"body": b"0123456789"})
    with pytest.raises(TransferError, match=f"^digest mismatch, file must be downloaded again: want {LAYER}"):
        await side().pull(name_on(evil))
