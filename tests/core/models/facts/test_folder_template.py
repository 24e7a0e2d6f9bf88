import json

import pytest

from puna.model_name import ModelName
from puna.models.facts.folder_template import chat_templates
from puna.models.show import show

TOOLS = "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
LIST = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}, {"name": "rag", "template": "R"}]


@pytest.fixture
def folder(tmp_path):
    def make(**files):
        found = {}
        for name, value in files.items():
            path = tmp_path / name
            path.write_bytes(value if isinstance(value, bytes) else json.dumps({"chat_template": value}).encode())
            found[NAMES[name]] = path
        return found

    return make


NAMES = {
    "config": "tokenizer_config.json",
    "json": "chat_template.json",
    "jinja": "chat_template.jinja",
    "tool_jinja": "additional_chat_templates/tool_use.jinja",
}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, ("", "")),
        ({"config": "C"}, ("C", "")),
        ({"config": LIST}, ("D", "T")),
        ({"config": LIST, "json": "J"}, ("J", "T")),
        ({"config": "C", "json": "J", "jinja": b"X", "tool_jinja": b"Y"}, ("X", "Y")),
        ({"config": None}, ("", "")),
        ({"config": [1, {"name": 3, "template": "x"}, {"name": "default"}]}, ("", "")),
        ({"config": b"{"}, ("", "")),
        ({"config": b"[]"}, ("", "")),
        ({"config": b'{"chat_template": ' + b"[" * 100_000}, ("", "")),
        ({"jinja": b"\xff{{ x }}"}, ("\ufffd{{ x }}", "")),
        ({"jinja": b"x" * (5 << 20)}, ("", "")),
    ],
)
def test_where_templates_are_found(folder, files, found):
    assert chat_templates(folder(**files)) == found


def test_the_template_makes_prompts_and_tells_what_the_model_can_do(workshop):
    files = {"tokenizer_config.json": workshop.upload(json.dumps({"chat_template": TOOLS}).encode())}
    workshop.create("m", backend="shelf", files=files)
    model = workshop.store.get(ModelName.parse("m"))
    assert (model.uses_jinja, model.chat_template) == (True, TOOLS)
    assert model.capabilities == ("completion", "tools")
    assert show(model).template == TOOLS
    workshop.create("mine", base="m", template="{{ .Prompt }}")
    assert "tools" in workshop.store.get(ModelName.parse("mine")).capabilities  # the template that can do more is used
