import json

import pytest

from puna.errors import ModelNotFoundError
from puna.gguf.reader import GGUF, Array
from puna.go.json import Float32
from puna.messages import Message
from puna.model_name import ModelName
from puna.models import show as show_module
from puna.models.show import show

ODD = [
    ("general.name", "str", "N"), ("general.file_type", "u32", 1), ("zed.context_length", "u64", 2**40),
    ("zed.f", "f32", 1e-5), ("zed.g", "f32", 10000.0), ("zed.h", "f32", 1e-7), ("zed.h2", "f32", 3.4e38),
    ("zed.h3", "f64", 0.1), ("zed.h4", "f64", 1e300), ("zed.b", "bool", True), ("zed.s", "str", "a<b>&\u2028 \x01 é"),
    ("zed.bad", "str", b"\xff\xfeabc"), ("zed.a8", "arr", ("u8", [1, 2, 3])), ("zed.ai8", "arr", ("i8", [-1, 2, 3])),
    ("zed.ae", "arr", ("u32", [])), ("zed.ae8", "arr", ("u8", [])), ("zed.af", "arr", ("f32", [0.1, 2, 1e-7])),
    ("zed.as", "arr", ("str", ["x", "<"])), ("zed.ab", "arr", ("bool", [True, False])), ("zed.i64", "i64", -5),
    ("tokenizer.chat_template", "str", "hello {{ tools }}"), ("UPPER.x", "u32", 3),
    ("general.parameter_count", "u64", 12),
]  # fmt: skip
"""With what Ollama made of it, below."""
INFO = (
    '{"UPPER.x":3,"general.architecture":"zed","general.file_type":1,"general.parameter_count":4,"zed.a8":%s,"zed.ab":%s,'
    '"zed.ae":[],"zed.ae8":"","zed.af":%s,"zed.ai8":%s,"zed.as":%s,"zed.b":true,"zed.bad":"\\ufffd\\ufffdabc",'
    '"zed.context_length":1099511627776,"zed.f":0.00001,"zed.g":10000,"zed.h":1e-7,"zed.h2":3.4e+38,"zed.h3":0.1,'
    '"zed.h4":1e+300,"zed.i64":-5,"zed.s":"a\\u003cb\\u003e\\u0026\\u2028 \\u0001 é"}'
)
VERBOSE = ('"AQID"', "[true,false]", "[0.1,2,1e-7]", "[-1,2,3]", '["x","\\u003c"]')


@pytest.fixture
def shown(workshop):
    return lambda name="m", **how: show(workshop.store.get(ModelName.parse(name)), **how)


def test_metadata_are_written_as_go_does(workshop, shown):
    workshop.create_plain("m", *ODD)
    assert shown().model_info_json == INFO % (("null",) * 5)
    assert shown(verbose=True).model_info_json == INFO % VERBOSE
    assert shown().template == "hello {{ tools }}"
    assert "TEMPLATE {{ .Prompt }}\n" in shown().modelfile
    assert [(each.name, each.type, each.shape) for each in shown().tensors] == [("v.x", "F32", (4,))]
    details = shown().details
    assert (details.quantization_level, details.context_length) == ("F16", 2**40)


def test_everything_of_a_model_is_told(workshop, shown):
    workshop.create_plain(
        "m", template="{{ .Prompt }}!", system='You are "full".', licenses=("MIT", "Apache-2.0"),
        parameters={"temperature": 0.5, "stop": ["YZ", "<end>"]}, requires="0.14.0", backend="ctransformers",
        messages=(Message(role="user", content="hi"),),
    )  # fmt: skip
    found = shown()
    assert found.license == "MIT\nApache-2.0"
    assert found.parameters == (
        'stop                           "YZ"\n'
        'stop                           "<end>"\n'
        "temperature                    0.5"
    )
    assert (found.template, found.system, found.requires) == ("{{ .Prompt }}!", 'You are "full".', "0.14.0")
    assert (found.backend, found.name.shortest, found.projector_info_json) == ("ctransformers", "m:latest", "")
    assert [message.content for message in found.messages] == ["hi"]
    assert found.modelfile.splitlines()[3:] == [
        "", f"FROM {workshop.store.get(ModelName.parse('m')).model_path}", "BACKEND ctransformers",
        "TEMPLATE {{ .Prompt }}!",
        'SYSTEM You are "full".', "PARAMETER stop YZ", "PARAMETER stop <end>", "PARAMETER temperature 0.5",
        "LICENSE MIT", "LICENSE Apache-2.0", "MESSAGE user hi",
    ]  # fmt: skip


def test_the_request_changes_the_system_text_and_the_modelfiles_parameters(workshop, shown):
    workshop.create_plain("m", system="mine", parameters={"temperature": 0.5})
    found = shown(system="other", options={"temperature": 1, "top_k": 5})
    assert (found.system, found.parameters) == ("other", "temperature                    0.5")
    assert "SYSTEM other\nPARAMETER temperature 1\nPARAMETER top_k 5\n" in found.modelfile


def test_the_scripted_models_are_told_as_the_reference_does(workshop, shown, scripted_models):
    digest = workshop.upload((scripted_models / "jinja-tools.gguf").read_bytes())
    workshop.create(files={"m.gguf": digest})
    found = shown()
    assert found.capabilities == ("tools", "completion")
    assert found.template.startswith("{%- if tools %}<|im_start|>system\n")
    info = json.loads(found.model_info_json)
    assert info["general.parameter_count"] == 184_192
    assert info["tokenizer.ggml.tokens"] is None
    assert '"llama.attention.layer_norm_rms_epsilon":0.00001,' in found.model_info_json
    assert len(json.loads(shown(verbose=True).model_info_json)["tokenizer.ggml.tokens"]) == 366
    assert found.tensors[0].name == "output.weight"


def test_a_stub_is_told_from_its_configuration(workshop, shown):
    workshop.create(
        base="gpt-oss:20b", remote_host="ollama.com", system="sys",
        info={"model_family": "gptoss", "base_name": "b", "context_length": 100, "embedding_length": 7},
    )  # fmt: skip
    found = shown()
    assert found.model_info_json == (
        '{"general.architecture":"gptoss","general.basename":"b","gptoss.context_length":100,"gptoss.embedding_length":7}'
    )
    assert "\nFROM \nTEMPLATE {{ .Prompt }}\nSYSTEM sys\n" in found.modelfile
    assert (found.remote_host, found.remote_model, found.tensors) == ("https://ollama.com:443", "gpt-oss:20b", ())
    workshop.create("bare", base="x", remote_host="/a")
    assert shown("bare").model_info_json == "{}"


def test_projectors_are_told(workshop, shown):
    projector = workshop.gguf(
        ("clip.has_vision_encoder", "bool", True), ("clip.projector_type", "str", "l"), architecture="clip"
    )
    workshop.create(files={"a.gguf": workshop.gguf(), "p.gguf": projector})
    assert json.loads(shown().projector_info_json)["clip.projector_type"] == "l"
    workshop.create("only", files={"p.gguf": projector})
    with pytest.raises(ModelNotFoundError, match="model 'only:latest' not found"):
        shown("only")


@pytest.mark.parametrize("at_once", [1, 3, show_module.AT_ONCE])
@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        (
            8,
            ("a<b>&", 'q"\\\n', "é\u2028", "\udcff!", ""),
            '["a\\u003cb\\u003e\\u0026","q\\"\\\\\\n","é\\u2028","\\ufffd!",""]',
        ),
        (6, (0.1, -2.0, 1e-7), "[0.1,-2,1e-7]"),
        (6, (0.5, float("nan"), float("inf")), "[0.5,null,null]"),
        (12, (0.1, 2.0), "[0.1,2]"),
        (5, (1, -2, 3), "[1,-2,3]"),
        (7, (True, False), "[true,false]"),
        (5, (), "[]"),
    ],
)
def test_arrays_in_slices(monkeypatch, at_once, kind, values, text):
    monkeypatch.setattr(show_module, "AT_ONCE", at_once)
    values = tuple(map(Float32, values)) if kind == 6 else values
    header = GGUF({"general.architecture": "x", "k": Array(kind, len(values), values)}, {}, (), 0)
    assert f'"k":{text}' in show_module.metadata_json(header)
