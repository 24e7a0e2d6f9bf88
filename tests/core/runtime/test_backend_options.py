import math

import pytest

from puna.errors import InvalidRequestError, LoadFailedError
from puna.plugins import Manifest
from puna.plugins.option import read_options
from puna.plugins.table import Table
from puna.runtime.backend_options import for_host, of_model, of_operator, of_request
from puna.secrets import read_secrets
from puna.settings import Settings


def manifest(**properties):
    declared, _ = read_options(Table({"properties": properties}))
    return Manifest(name="tuned", options=declared)


TUNED = manifest(
    threads={"type": "integer", "minimum": 1, "maximum": 8, "x-scope": "request"},
    scale={"type": "number", "minimum": 0, "maximum": 2.5, "x-scope": "request"},
    fast={"type": "boolean", "x-scope": "request"},
    mode={"type": "string", "enum": ["a", "b"], "x-scope": "request"},
    folder={"type": "string", "x-scope": "model"},
    library={"type": "string"},
    free={"type": "number"},
    names={"type": "array", "items": {"type": "string"}},
)


def test_what_is_declared_passes():
    given = {"threads": 8, "scale": 1, "fast": False, "mode": "b"}
    assert of_request(TUNED, given) == {"threads": 8, "scale": 1.0, "fast": False, "mode": "b"}
    assert of_operator(TUNED, {"library": "/lib/x.so"}) == {"library": "/lib/x.so"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nosuch": 1}, "backend 'tuned' has no option 'nosuch'"),
        ({"library": "/tmp/x.so"}, "option 'library' of backend 'tuned' is set in the server's configuration"),
        ({"library": None}, "option 'library' of backend 'tuned' is set in the server's configuration"),
        ({"threads": 0}, "option 'threads' of backend 'tuned' must be between 1 and 8"),
        ({"threads": 2**80}, "between 1 and 8"),
        ({"threads": 2.0}, "must be a whole number"),
        ({"threads": True}, "must be a whole number"),
        ({"threads": "2"}, "must be a whole number"),
        ({"threads": None}, "must be a whole number"),
        ({"scale": math.nan}, "between 0 and 2.5"),
        ({"scale": math.inf}, "between 0 and 2.5"),
        ({"scale": 2**2000}, "must be a number"),
        ({"fast": 1}, "must be true or false"),
        ({"mode": "/tmp/x.so"}, "must be one of 'a', 'b'"),
        ({"mode": ["a"]}, "must be a text"),
        ({"mode": {"a": {}}}, "must be a text"),
    ],
)
def test_what_is_not_declared_is_refused_by_name(given, words):
    with pytest.raises(InvalidRequestError, match=words):
        of_request(TUNED, given)


@pytest.mark.parametrize("given", [{"nosuch": 1}, {"threads": 9}, {"library": 1}])
def test_the_operators_options_are_checked_too(given):
    with pytest.raises(LoadFailedError, match=r"table \[backends\.tuned\] is wrong: "):
        of_operator(TUNED, given)


@pytest.mark.parametrize(
    ("setting", "options"), [(None, {"kernels": True}), (False, {"kernels": False}), (True, {"kernels": True})]
)
def test_the_setting_for_kernels_wins_over_the_file(setting, options):
    with_kernels = manifest(kernels={"type": "boolean"})
    assert of_operator(with_kernels, {"kernels": True}, kernels=setting) == options


def test_the_setting_for_exact_kernels_wins_over_the_file():
    with_kernels = manifest(kernels={"type": "boolean"}, exact_kernels={"type": "boolean"})
    given = {"exact_kernels": False}
    assert of_operator(with_kernels, given, kernels="exact") == {"kernels": True, "exact_kernels": True}
    assert of_operator(with_kernels, given) == given


def test_backends_without_kernels_do_not_get_the_setting():
    assert of_operator(TUNED, {"library": "x"}, kernels=False) == {"library": "x"}


def test_a_model_may_set_what_requests_may_and_what_is_declared_for_models():
    assert of_model(TUNED, {"threads": 2, "folder": "x"}) == {"threads": 2, "folder": "x"}
    with pytest.raises(InvalidRequestError, match=r"'library' of backend 'tuned' is set in the server's .* by models"):
        of_model(TUNED, {"library": "/tmp/x.so"})
    with pytest.raises(InvalidRequestError, match=r"'folder' of backend 'tuned' is set in the server's .* by requests"):
        of_request(TUNED, {"folder": "x"})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"free": math.nan}, "must be a number"),
        ({"free": math.inf}, "must be a number"),
        ({"names": ["a", 1]}, r"option 'names' of backend 'tuned' \['1'\] must be a text"),
    ],
)
def test_the_operators_errors_say_where(given, words):
    with pytest.raises(LoadFailedError, match=words):
        of_operator(TUNED, given)


KEY = {"type": "string", "x-secret": True, "x-scope": "model"}
UPSTREAM = {"url": {"type": "string"}, "key": {"type": "string", "x-secret": True}}
UPSTREAMS = {"type": "object", "additionalProperties": {"type": "object", "properties": UPSTREAM}}
SECRETS = read_secrets({"a": "hidden-a", "b": {"env": "B"}, "c": {"file": "/no/such/file"}})


def settings(**options):
    return Settings(backend_options={"tuned": options}, secrets=SECRETS)


def test_the_host_gets_the_options_of_all_three():
    given = settings(library="/lib", threads=2, fast=True)
    assert for_host(TUNED, given, {"threads": 5}) == {"library": "/lib", "threads": 5, "fast": True}


def test_a_model_from_a_registry_sets_no_option_of_the_operators():
    with pytest.raises(LoadFailedError, match="the options in m are wrong: option 'library' of backend 'tuned' is set"):
        for_host(TUNED, settings(), {"library": "/tmp/x.so"}, "m")


def test_names_of_secrets_are_replaced_for_the_host_alone(monkeypatch):
    monkeypatch.setenv("B", "hidden-b")
    secret = manifest(key=KEY, upstreams=UPSTREAMS, names={"type": "array", "items": {"type": "string"}})
    given = settings(upstreams={"one": {"url": "a", "key": "b"}, "two": {"url": "a"}}, names=["a"])
    assert for_host(secret, given, {"key": "a"}) == {
        "key": "hidden-a",
        "upstreams": {"one": {"url": "a", "key": "hidden-b"}, "two": {"url": "a"}},
        "names": ["a"],
    }
    assert of_model(secret, {"key": "a"}) == {"key": "a"}
    assert "hidden" not in repr(given)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("hidden-key", r"option 'key' of backend 'tuned' must name an entry of the configuration's table \[secrets\]"),
        ("b", "needs a secret: the environment variable B is not set"),
        ("c", "needs a secret: the file /no/such/file cannot be read: No such file or directory"),
    ],
)
def test_a_secret_that_is_not_there_is_an_error_without_the_text(entry, words, monkeypatch):
    monkeypatch.delenv("B", raising=False)
    with pytest.raises(LoadFailedError, match=words) as caught:
        for_host(manifest(key=KEY), settings(key=entry))
    assert "hidden" not in str(caught.value)


def test_an_option_that_must_be_set_is_asked_for():
    declared, required = read_options(Table({"properties": {"url": {"type": "string"}}, "required": ["url"]}))
    needy = Manifest(name="tuned", options=declared, required_options=required)
    assert for_host(needy, settings(url="x")) == {"url": "x"}
    with pytest.raises(LoadFailedError, match="backend 'tuned' needs the option 'url'"):
        for_host(needy, settings())
