"""What show and list tell of models like these was asked of Ollama."""

import pytest

from puna.model_name import ModelName

JINJA = ("tokenizer.chat_template", "str", "{% if tools %}tool_call{% endif %}<think></think>")
THINKING = "{{ .Suffix }}{{ range .Messages }}<think>{{ .Thinking }}</think>{{ end }}{{ .Tools }}"


@pytest.fixture
def told(workshop):
    """Make a model and return what show and what list say it can do."""

    def told(*pairs, files=None, **what):
        architecture = what.pop("architecture", "zed")
        model = {"a.gguf": workshop.gguf(*pairs, architecture=architecture)}
        workshop.create("m", files=model | (files or {}), **what)
        model = workshop.store.get(ModelName.parse("m"))
        return list(model.capabilities), list(workshop.store.list()[0].capabilities)

    return told


def test_a_model_completes_unless_it_embeds(told):
    assert told() == (["completion"], ["completion"])
    assert told(("zed.pooling_type", "u32", 0)) == (["embedding"], ["embedding"])


def test_the_jinja_template_counts_only_for_show_and_only_in_use(told):
    assert told(JINJA) == (["tools", "thinking", "completion"], ["completion"])
    assert told(JINJA, template="{{ .Tools }}{{ .Suffix }}") == (
        ["completion", "tools", "insert"], ["completion", "tools", "insert"],
    )  # fmt: skip
    assert told(JINJA, renderer="x") == (["completion"], ["completion"])
    assert told(JINJA, template="{{ .Tools }}") == (["tools", "thinking", "completion"], ["completion", "tools"])


def test_what_it_sees_and_hears(told):
    pairs = [("zed.block_count", "u32", 1), ("zed.audio.block_count", "u32", 0), ("zed.vision.block_count", "str", "x")]
    assert told(*pairs) == (["completion", "vision", "audio"], ["audio", "vision", "completion"])
    late = [("zed.block_count", "u32", 1), ("tokenizer.x", "u8", 1), ("zed.vision.block_count", "u32", 2)]
    assert told(*late) == (["completion", "vision"], ["completion"])


def test_projectors_see_and_may_hear(told, workshop):
    def projector(*pairs):
        return {"p.gguf": workshop.gguf(("general.type", "str", "projector"), *pairs)}

    hears = ("foo.has_audio_encoder", "bool", True)
    assert told(files=projector()) == (["completion", "vision"], ["completion", "vision"])
    assert told(files=projector(hears)) == (["completion", "vision", "audio"], ["completion", "vision"])
    deaf = projector(("zed.has_audio_encoder", "bool", True), ("zed.vision.projector_type", "str", "gemma3nv"))
    assert told(files=deaf) == (["completion", "vision"], ["completion", "vision"])


def test_parsers_and_overrides_count_in_the_references_order(told):
    assert told(template=THINKING, parser="qwen3-thinking", info={"capabilities": ["zz", "vision"]}) == (
        ["zz", "vision", "completion", "tools", "insert", "thinking"],
        ["completion", "zz", "vision", "tools", "insert", "thinking"],
    )
    assert told(parser="qwen3") == (["completion", "tools"], ["completion", "tools"])
    assert told(parser="olmo3-think") == (["completion", "thinking"], ["completion", "thinking"])
    assert told(parser="nosuch") == (["completion"], ["completion"])


def test_gpt_oss_thinks(told):
    assert told(architecture="gptoss", template="<|start|><|end|>") == (
        ["completion", "thinking"], ["completion", "thinking"],
    )  # fmt: skip
    assert told(JINJA, architecture="gpt-oss") == (["tools", "thinking", "completion"], ["completion", "thinking"])


def test_what_does_not_work_is_taken_away(told):
    pairs = [("nemotron_h_omni.block_count", "u32", 1), ("nemotron_h_omni.audio.block_count", "u32", 1)]
    both = ["completion", "tools", "thinking"]
    assert told(*pairs, architecture="nemotron_h_omni") == (both, both)


def test_stubs_can_what_their_configuration_says(workshop):
    workshop.create("m", base="far", remote_host="x", info={"capabilities": ["tools"], "model_family": "gptoss"})
    assert workshop.store.get(ModelName.parse("m")).capabilities == ("tools", "thinking")
    assert workshop.store.list()[0].capabilities == ("tools", "thinking")
