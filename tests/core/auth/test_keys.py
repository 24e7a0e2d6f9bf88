"""The file of keys: what is kept, who is recognised, and what happens when it changes or breaks."""

import json
import os
import stat

import pytest

from puna.auth.keys import ApiKey, KeyFile, KeyFileError, digest_of


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "puna" / "keys.json"


def test_without_a_file_no_key_is_needed(path):
    assert not KeyFile(path).enabled


def test_a_key_is_recognised_by_its_text_alone(path):
    keys = KeyFile(path)
    key, text = keys.create(name="shop")
    _, other = keys.create(name="mill")
    assert keys.enabled
    assert keys.find(text) == key
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    mixed = f"puna_{key.id}_{other.rpartition('_')[2]}"
    for bad in (
        wrong,
        mixed,
        text.upper(),
        text + " ",
        f"x{text}",
        key.id,
        key.digest,
        "",
        "puna__",
        "a_b_c",
        "ü_\ud800",
    ):
        assert keys.find(bad) is None, bad


def test_the_file_holds_no_secret_and_is_private(path):
    key, text = KeyFile(path).create(name="shop")
    secret = text.removeprefix(f"puna_{key.id}_")
    assert secret not in path.read_text()
    assert digest_of(secret) in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in repr(key)


def test_a_revoked_key_is_refused_and_the_server_stays_closed(path):
    keys = KeyFile(path)
    key, text = keys.create(name="shop")
    keys.revoke("shop")
    assert keys.find(text) is None
    assert keys.enabled
    assert [each.revoked for each in keys.listed()] == [True]
    for unknown in ("shop", key.id, "mill"):
        with pytest.raises(KeyFileError, match="0 keys in use"):
            keys.revoke(unknown)


def test_a_name_that_two_keys_have_revokes_neither(path):
    keys = KeyFile(path)
    first, text = keys.create(name="shop")
    keys.create(name="shop")
    with pytest.raises(KeyFileError, match="2 keys in use"):
        keys.revoke("shop")
    keys.revoke(first.id)
    assert keys.find(text) is None


def test_a_running_server_notices_within_a_second(path, clock):
    server = KeyFile(path, clock)
    _, text = KeyFile(path).create(name="shop")
    clock.now += 1.0
    assert server.enabled
    assert server.find(text) is not None
    KeyFile(path).revoke("shop")
    clock.now += 1.0
    assert server.find(text) is None


def test_a_file_that_is_removed_does_not_open_the_server(path, clock):
    server = KeyFile(path, clock)
    _, text = server.create(name="shop")
    path.unlink()
    clock.now += 1.0
    assert server.find(text) is None
    assert server.enabled


def test_a_broken_file_leaves_the_old_keys_in_force(path, clock, caplog):
    server = KeyFile(path, clock)
    _, text = server.create(name="shop")
    path.write_text("{")
    for _ in range(3):
        clock.now += 1.0
        assert server.find(text) is not None
    assert len(caplog.records) == 1
    with pytest.raises(KeyFileError, match=r"keys.json is not a file of keys"):
        KeyFile(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"allow": ["everything"]}, "allow"),
        ({"allow": "inference"}, "allow"),
        ({"allow": []}, "allow"),
        ({"models": [1]}, "models"),
        ({"tokens_per_day": -1}, "tokens_per_day"),
        ({"tokens_per_day": 1.5}, "tokens_per_day"),
        ({"requests_per_minute": True}, "requests_per_minute"),
        ({"priority": 1}, "priority"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"limit": 1}, "unknown"),
    ],
)
def test_a_bad_field_is_named(path, change, named):
    KeyFile(path).create(name="shop")
    data = json.loads(path.read_text())
    data["keys"][0] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(KeyFileError, match=named) as failed:
        KeyFile(path)
    assert f"{path}: key 1" in str(failed.value)


def test_a_bad_value_of_a_new_key_writes_nothing(path):
    with pytest.raises(KeyFileError, match="allow"):
        KeyFile(path).create(name="shop", allow=("root",))
    assert not path.exists()


@pytest.mark.parametrize(
    ("models", "allowed", "refused"),
    [
        ((), ["any:latest", "hf.co/a/b:q4"], []),
        (("llamita",), ["llamita:latest", "LLAMITA:q8"], ["llamita-embed:latest", "x/llamita:latest"]),
        (("llamita:q8",), ["llamita:q8"], ["llamita:latest"]),
        (("team/*",), ["team/a:latest", "team/b:q4"], ["other/a:latest"]),
        (("host:5000/team/a",), ["host:5000/team/a:latest"], ["team/a:latest"]),
        (("a", "b"), ["a:latest", "b:latest"], ["c:latest"]),
    ],
)
def test_the_models_of_a_key(models, allowed, refused):
    key = ApiKey(id="1", name="shop", digest="", models=models)
    assert [each for each in allowed + refused if key.allows_model(each)] == allowed


def test_a_file_that_may_not_be_read_is_an_error(path):
    KeyFile(path).create(name="shop")
    path.unlink()
    path.mkdir()
    with pytest.raises(KeyFileError, match=os.fspath(path)):
        KeyFile(path)


def test_a_file_of_a_newer_version_is_refused_and_stays_as_it_is(path):
    keys = KeyFile(path)
    key, text = keys.create(name="shop")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2, "rules": [1]}))
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match=r"keys.json has format version 2, and this version of Puna knows 1 at most"):
        KeyFile(path)
    for change in (lambda: keys.create(name="mill"), lambda: keys.revoke(key.id)):
        with pytest.raises(KeyFileError, match="format version 2"):
            change()
    # A server that runs goes on with the keys that it has read.
    assert keys.find(text) == key
    assert path.read_bytes() == before


def test_what_stands_beside_the_keys_stays_there(path):
    KeyFile(path).create(name="shop")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "ours"}))
    KeyFile(path).create(name="mill")
    KeyFile(path).revoke("shop")
    found = json.loads(path.read_text())
    assert (found["version"], found["note"], len(found["keys"])) == (1, "ours", 2)
