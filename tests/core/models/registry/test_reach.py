"""Where a registry may send this server, by address, name and scheme."""

import asyncio
import ipaddress
import socket

import aiohttp
import pytest

from puna.models.registry.addresses import address_of, is_public
from puna.models.registry.failures import ReferralError
from puna.models.registry.origin import Origin, Pattern
from puna.models.registry.reach import ForbiddenAddressError, Reach, connections

PUBLIC = "93.184.215.14"


@pytest.mark.parametrize(
    "text", ["8.8.8.8", PUBLIC, "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2001:4860:4860::8888"]
)
def test_public_addresses(text):
    assert is_public(address_of(text))


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("169.254.169.254", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%lo", "fc00::1", "fd00::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::7f00:1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::", "2001:0:1::1"),
        *("4000::1", "5f00::1", "3fff::1"),
    ],
)
def test_addresses_that_are_not_public(text):
    assert not is_public(address_of(text))


@pytest.mark.parametrize(
    "text", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1 ", "\uff11\uff12\uff17.0.0.1", "r", ""]
)
def test_what_is_no_address_in_its_canonical_form(text):
    assert address_of(text) is None


def test_an_address_of_ipv4_within_ipv6_is_the_same():
    assert address_of("::ffff:127.0.0.1") == ipaddress.ip_address("127.0.0.1")


class TestOrigins:
    @pytest.mark.parametrize(
        ("url", "origin"),
        [
            ("https://R.Example/x", ("https", "r.example", 443)),
            ("http://r:5000", ("http", "r", 5000)),
            ("https://r:443/x?y#z", ("https", "r", 443)),
            ("http://[::1]:5000/", ("http", "::1", 5000)),
        ],
    )
    def test_of_an_address(self, url, origin):
        assert Origin.of(url) == Origin(*origin)

    @pytest.mark.parametrize(
        "url",
        ["ftp://r/", "file:///etc/passwd", "r", "//r/x", "http://", "http://u@r/", "http://u:p@r/", "http://r:x/"],
    )
    def test_addresses_that_have_none(self, url):
        with pytest.raises(ValueError, match=r"."):
            Origin.of(url)

    @pytest.mark.parametrize(
        ("pattern", "covered"),
        [
            ("r.example", {"https://r.example", "http://r.example"}),
            ("R.example:5000", {"https://r.example:5000"}),
            ("https://r.example", {"https://r.example"}),
            ("http://r.example/", {"http://r.example"}),
            ("*.example", {"https://r.example", "http://r.example", "https://a.r.example"}),
        ],
    )
    def test_patterns(self, pattern, covered):
        all_of_them = (
            "https://r.example",
            "http://r.example",
            "https://r.example:5000",
            "https://a.r.example",
            "https://example",
            "https://evil-r.example.org",
        )
        assert {each for each in all_of_them if Pattern.parse(pattern).covers(Origin.of(each))} == covered

    @pytest.mark.parametrize("text", ["", "ftp://r", "r/x", "u@r", "r:x", "a b", "*"])
    def test_patterns_that_make_no_sense(self, text):
        with pytest.raises(ValueError, match=r"."):
            Pattern.parse(text)


def reach(home="https://registry.example", *peers):
    return Reach(Origin.of(home), [Pattern.parse(each) for each in peers])


class TestChecks:
    @pytest.mark.parametrize(
        "url",
        [
            "http://registry.example/x",  # in clear
            "https://me@storage.example/x",
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://[fe80::1%25eth0]/x",
            "https://169.254.169.254/latest/meta-data",
            "gopher://storage.example/",
            "https://2130706433/",
            "https://127.1/",
            "file:///etc/passwd",
            "https://",
        ],
    )
    def test_refused(self, url):
        with pytest.raises(ReferralError, match=r"^the registry refers to "):
            reach().check(url, "https://registry.example/v2/")

    @pytest.mark.parametrize(
        "url", ["https://storage.example/x?sign=1", f"https://{PUBLIC}/x", "https://registry.example"]
    )
    def test_allowed(self, url):
        reach().check(url, "https://registry.example/v2/")

    def test_the_operator_names_further_hosts(self):
        with_peer = reach("http://10.0.0.1:5000", "10.0.0.2:9000")
        with_peer.check("http://10.0.0.2:9000/x", "http://10.0.0.1:5000/v2/")
        with pytest.raises(ReferralError):
            with_peer.check("http://10.0.0.2:9001/x", "http://10.0.0.1:5000/v2/")

    def test_secrets_of_signed_addresses_are_not_shown(self):
        with pytest.raises(ReferralError) as raised:
            reach().check("https://127.0.0.1/x?Signature=secret", "https://registry.example/")
        assert "secret" not in str(raised.value)


class TestNames:
    def test_a_name_of_another_host_needs_public_addresses(self):
        here = reach()
        assert here.admitted("s.example", 443, [PUBLIC, "10.0.0.1"], secure=True) == [PUBLIC]
        with pytest.raises(ForbiddenAddressError):
            here.admitted("s.example", 443, ["10.0.0.1", "::1"], secure=True)
        with pytest.raises(ForbiddenAddressError):
            here.admitted("s.example", 80, [PUBLIC], secure=False)

    def test_the_registry_may_be_anywhere_and_stays_there(self):
        here = reach()
        assert here.admitted("registry.example", 443, ["10.0.0.1"], secure=True) == ["10.0.0.1"]
        with pytest.raises(ForbiddenAddressError):
            here.admitted("registry.example", 443, ["127.0.0.1"], secure=True)
        assert here.admitted("registry.example", 443, [PUBLIC], secure=True) == [PUBLIC]

    def test_the_registry_under_another_name_is_the_registry(self):
        here = reach("http://registry.example:5000")
        here.admitted("registry.example", 5000, ["10.0.0.1"], secure=False)
        assert here.admitted("other.example", 5000, ["10.0.0.1", "10.0.0.2"], secure=False) == ["10.0.0.1"]
        with pytest.raises(ForbiddenAddressError):
            here.admitted("other.example", 5001, ["10.0.0.1"], secure=False)

    def test_the_registry_by_https(self):
        here = reach("http://registry.example")
        assert here.admitted("registry.example", 443, ["10.0.0.1"], secure=True) == ["10.0.0.1"]

    def test_peers_may_be_anywhere(self):
        here = reach("https://registry.example", "*.corp.example")
        assert here.admitted("s.corp.example", 443, ["10.0.0.9"], secure=True) == ["10.0.0.9"]


class TestConnections:
    """The code that connects is asked after the last look-up."""

    @pytest.fixture
    def names(self, monkeypatch):
        """Names and the addresses that each look-up gives, the last one for good; what was asked."""
        table, asked, real = {}, [], socket.getaddrinfo

        def getaddrinfo(host, port, *args, **kwargs):
            asked.append(host)
            if host not in table:
                return real(host, port, *args, **kwargs)
            addresses = table[host].pop(0) if len(table[host]) > 1 else table[host][0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        table["asked"] = asked
        return table

    @pytest.fixture
    async def victim(self):
        """A server on 127.0.0.2 that nobody may reach; its port and its connections."""
        met = []

        async def meet(_reader, writer):
            met.append(writer.get_extra_info("peername"))
            writer.close()

        server = await asyncio.start_server(meet, "127.0.0.2", 0)
        async with server:
            yield server.sockets[0].getsockname()[1], met

    async def _tried(self, here, url):
        async with connections(here, 5) as opened:
            session, proxy = await opened.session(url)
            assert proxy is None
            with pytest.raises(aiohttp.ClientConnectorError) as raised:
                await session.get(url)
        assert isinstance(raised.value.os_error, ForbiddenAddressError)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    async def test_a_name_that_resolves_to_this_machine(self, names, victim, scheme):
        names["storage.example"] = [["127.0.0.2"]]
        await self._tried(reach(), f"{scheme}://storage.example:{victim[0]}/")
        assert victim[1] == []

    async def test_a_name_that_changes_its_mind(self, names, victim):
        home = f"https://registry.example:{victim[0]}"
        names["registry.example"] = [["127.0.0.2"]]
        here = reach(home)
        here.admitted("registry.example", victim[0], [PUBLIC], secure=True)
        await self._tried(here, home)
        assert victim[1] == []

    @pytest.mark.parametrize("host", ["127.0.0.2", "[::ffff:127.0.0.2]", "0x7f000002", "0177.0.0.2", "0x7f.2"])
    async def test_every_way_to_write_an_address(self, victim, host):
        async with connections(reach(), 5) as opened:
            url = f"https://{host}:{victim[0]}/"
            session, _ = await opened.session(url)
            with pytest.raises((aiohttp.ClientConnectorError, aiohttp.InvalidURL)):
                await session.get(url)
        assert victim[1] == []

    async def test_proxies_are_not_asked_for_private_addresses(self, names, monkeypatch):
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        names |= {"storage.example": [["10.0.0.1"]], "public.example": [[PUBLIC]]}
        async with connections(reach(), 5) as opened:
            for refused in ("https://storage.example/", "http://public.example/"):
                with pytest.raises(ReferralError):
                    await opened.session(refused)
            for url in ("https://registry.example/", "https://public.example/", "https://unknown.invalid/"):
                assert (await opened.session(url))[1] == "http://127.0.0.1:1"
