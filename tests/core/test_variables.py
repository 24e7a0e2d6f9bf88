import json
from collections.abc import Mapping
from dataclasses import fields

from puna.process import child_environment
from puna.settings import from_environment
from puna.variables import VARIABLES, help_line, read_by, variable

ELSEWHERE = {
    "PUNA_PASS_ENVIRONMENT": child_environment.PASS,
    "XDG_RUNTIME_DIR": "read by puna.runtime.sockets",
}
"""Variables that the settings do not hold."""


class Spy(Mapping):
    """An empty environment that notes what it is asked for."""

    def __init__(self):
        self.asked = set()

    def __getitem__(self, name):
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0


def test_the_list_has_exactly_what_the_settings_read(tmp_path):
    spy = Spy()
    empty = tmp_path / "config.toml"
    empty.touch()
    from_environment(spy, empty)
    asked = {name for name in spy.asked if not name.startswith(("PUNA_MAX_", "PUNA_TEMPLATE_", "PUNA_HEADER_"))}
    bounds = {"PUNA_IDLE_TIMEOUT", "PUNA_BODY_TIMEOUT", "PUNA_WRITE_TIMEOUT"}
    assert asked - bounds == {each.name for each in VARIABLES} - ELSEWHERE.keys()


NOT_IN_FILE = [
    "api_key",
    "backend_options",
    "docker_auth",
    "docker_config",
    "history",
    "limits",
    "model_settings",
    "secrets",
]


def test_keys_of_the_file_are_read(tmp_path):
    config, empty = tmp_path / "config.toml", tmp_path / "empty.toml"
    empty.touch()
    given = {"list": ["chat"], "duration": "7s", "boolean": True, "integer": 7, "range": 7, "address": "127.0.0.7:7"}
    values = {
        each.key: each.choices[-1] if each.kind == "text" and each.choices else given.get(each.kind, "x")
        for each in VARIABLES
        if each.key
    }
    # The values must differ from the defaults.
    on = [each for each in VARIABLES if each.kind == "boolean" and each.default == "on"]
    values |= {each.key: False for each in on}
    config.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items()))
    from_the_file = from_environment({}, config)
    # Each variable means the same in the file and in the environment.
    texts = {"list": "chat", "duration": "7s", "boolean": "1", "integer": "7", "range": "7", "address": "127.0.0.7:7"}
    environ = {each.name: texts.get(each.kind, values[each.key]) for each in VARIABLES if each.key}
    environ |= {each.name: "0" for each in on}
    assert from_the_file == from_environment(environ, empty)
    untouched = from_environment({}, empty)
    same = [
        each.name
        for each in fields(from_the_file)
        if getattr(from_the_file, each.name) == getattr(untouched, each.name)
    ]
    assert sorted(same) == NOT_IN_FILE


def test_names_are_unique_and_texts_fit_a_sentence():
    assert len({each.name for each in VARIABLES}) == len(VARIABLES)
    assert not [each.name for each in VARIABLES if each.about.endswith(".") or "|" in each.about]


def test_help_names_the_default_without_marks():
    assert help_line("OLLAMA_MODELS") == ("OLLAMA_MODELS", "folder of the model store (default: ~/.ollama/models)")
    assert "`" not in help_line("PUNA_PASS_ENVIRONMENT")[1]


def test_a_client_is_told_only_what_it_reads():
    assert read_by("client") == ["PUNA_GRPC_HOST", "PUNA_API_KEY", "PUNA_TLS_CA", "OLLAMA_NOHISTORY"]
    assert variable("OLLAMA_NOHISTORY").kind == "boolean"
