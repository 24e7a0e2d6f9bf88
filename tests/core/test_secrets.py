import pytest

from puna.secrets import MAX_BYTES, SecretError, read_secrets


@pytest.mark.parametrize("made", ["text", "file", "env"])
def test_a_secret_comes_from_the_configuration_a_file_or_the_environment(made, tmp_path):
    (tmp_path / "key").write_text("hidden\n")
    entry = {"text": "hidden", "env": {"env": "K"}, "file": {"file": str(tmp_path / "key")}}
    secrets = read_secrets({"a": entry[made]})
    assert secrets["a"].read({"K": "hidden"}) == "hidden"
    assert "hidden" not in f"{secrets!r} {secrets['a']!r} {secrets}"
    assert repr(secrets) == "Secrets(['a'])"


def test_a_file_is_read_each_time(tmp_path):
    path = tmp_path / "key"
    path.write_text("old")
    secret = read_secrets({"a": {"file": str(path)}})["a"]
    assert secret.read() == "old"
    path.write_text("new")
    assert secret.read() == "new"


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xfe", "is not UTF-8"), (b"a" * (MAX_BYTES + 1), "has more than 65536 bytes")]
)
def test_a_file_that_holds_no_secret_is_named_and_not_shown(tmp_path, content, words):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(SecretError, match=words) as caught:
        read_secrets({"a": {"file": str(tmp_path / "key")}})["a"].read()
    assert caught.value.__cause__ is None


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(SecretError, match="the environment variable K is not set"):
        read_secrets({"a": {"env": "K"}})["a"].read({})


@pytest.mark.parametrize(
    "entry",
    [
        1,
        None,
        ["hidden"],
        {},
        {"key": "hidden"},
        {"value": "hidden"},
        {"env": 1},
        {"env": "A", "file": "hidden"},
        {"file": ""},
    ],
)
def test_a_wrong_entry_is_named_and_not_shown(entry):
    with pytest.raises(ValueError, match=r"\[secrets\] a must be a text, or a table") as caught:
        read_secrets({"a": entry})
    assert "hidden" not in str(caught.value)


def test_secrets_are_a_table():
    with pytest.raises(ValueError, match="is a table"):
        read_secrets(["hidden"])
