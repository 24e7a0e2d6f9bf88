"""Status lines, manifests and configurations are Ollama's, as it wrote them when asked."""

import json
import shutil

import pytest

from puna.errors import (
    CreateFailedError,
    InvalidCreateError,
    InvalidDigestError,
    InvalidModelNameError,
    TransferError,
)
from puna.gguf import reader as gguf
from puna.gguf.reader import GGUFError
from puna.messages import Message
from puna.model_name import ModelName
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.create.uploads import NotUploadedError
from puna.models.progress import JobPhase, TransferStep
from puna.models.storage.blobs import digest_of

TEMPLATE = "<{{ .Prompt }}>"
MISSING = "sha256:" + "3" * 64
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_STOP = "sha256:f02dd72bb2423204352eabc5637b44d79d17f109fdb510a7c51455892aa2d216"


def new(digest):
    return f"creating new layer {digest}"


def old(digest):
    return f"using existing layer {digest}"


DONE = ["writing manifest", "success"]


def test_an_uploaded_model_goes_through_the_quantizer(workshop, scripted_models):
    digest = workshop.upload((scripted_models / "scripted.gguf").read_bytes())
    steps = workshop.create(files={"scripted.gguf": digest}, template=TEMPLATE)
    assert steps == [
        "parsing GGUF",
        "verifying conversion",
        new("sha256:62981de3c00c91332ad8daaed32c1e58075e9bd0a7318ec72e17dddeec9fe4b3"),
        new(digest_of(TEMPLATE.encode())),
        *DONE,
    ]
    assert workshop.layers() == [("model", ""), ("template", "")]
    assert workshop.config() == (
        '{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"184K","file_type":"unknown",'
        '"architecture":"amd64","os":"linux"}\n'
    )
    assert workshop.store.list()[0].details.quantization_level == "F32"


def test_quantizing_an_f32_model_is_possible(workshop, scripted_models):
    digest = workshop.upload((scripted_models / "scripted.gguf").read_bytes())
    steps = workshop.create(files={"scripted.gguf": digest}, quantize="q8_0")
    assert [step for step in steps if not step.startswith("quantizing F32 model to Q8_0")] == [
        "parsing GGUF",
        "verifying conversion",
        new("sha256:efb6c347e77c8e31af0255f986a4838e891e1984585604f76c3b0f85604df6e5"),
        *DONE,
    ]
    assert '"file_type":"Q8_0"' in workshop.config()
    with pytest.raises(CreateFailedError, match=r"^quantization is only supported for F16, BF16 and F32 models$"):
        workshop.create("n", base="m", quantize="f16")
    text = "unsupported quantization type Q9_9 - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"
    with pytest.raises(CreateFailedError, match=text):
        workshop.create("n", base="m", quantize="q9_9")


def test_without_a_quantizer_files_are_kept_and_quantizing_is_refused(workshop, scripted_models):
    digest = workshop.upload((scripted_models / "scripted.gguf").read_bytes())
    files = {"scripted.gguf": digest}
    steps = [step.status for step in create(workshop.store, CreateRequest(name="m", files=files))]
    assert steps == ["parsing GGUF", old(digest), *DONE]
    with pytest.raises(CreateFailedError, match="no installed backend can quantize"):
        list(create(workshop.store, CreateRequest(name="n", files=files, quantize="q8_0")))


def test_what_the_quantizer_refuses_is_refused(workshop):
    digest = workshop.gguf(tensors=[])
    text = "failed to validate GGUF with llama-quantize without compatibility patches: "
    text += "llama-quantize failed: exit status 1: "
    with pytest.raises(CreateFailedError) as caught:
        workshop.create(files={"a.gguf": digest})
    assert str(caught.value).startswith(text)
    assert workshop.store.list() == []


def test_an_unknown_architecture_is_named(workshop):
    digest = workshop.gguf(architecture="zed", tensors=[("blk.0.x", (4,), 0, bytes(16))])
    with pytest.raises(CreateFailedError, match=r": unknown model architecture: 'zed'$"):
        workshop.create(files={"a.gguf": digest})


def test_progress_of_a_long_quantization_is_told_and_stopping_is_heard(workshop, monkeypatch):
    monkeypatch.setattr("puna.models.create.create._PROGRESS_SECONDS", 0)

    def rewriter(source, target, kind, stopped):
        yield 1, 4
        yield 4, 4
        shutil.copy(source, target)

    digest = workshop.gguf(("general.file_type", "u32", 1))
    size = workshop.store.blobs.size(digest)
    request = CreateRequest(name="m", files={"a.gguf": digest}, quantize="q4_k")
    steps = list(create(workshop.store, request, rewriter=rewriter))
    assert steps[1:3] == [
        TransferStep(JobPhase.QUANTIZING, "quantizing F16 model to Q4_K_M", "", size, size // 4),
        TransferStep(JobPhase.QUANTIZING, "quantizing F16 model to Q4_K_M", "", size, size),
    ]
    with pytest.raises(CreateFailedError):
        list(create(workshop.store, request, rewriter=rewriter, stopped=lambda: True))


def test_progress_of_rewriting_and_joining_is_told_in_bytes(workshop, scripted_models, monkeypatch):
    monkeypatch.setattr("puna.models.create.create._PROGRESS_SECONDS", 0)

    def rewriter(source, target, kind, stopped):
        yield 1, 4
        shutil.copy(source, target)

    digest = workshop.upload((scripted_models / "scripted.gguf").read_bytes())
    size = workshop.store.blobs.size(digest)
    steps = list(create(workshop.store, CreateRequest(name="m", files={"m.gguf": digest}), rewriter=rewriter))
    assert TransferStep(JobPhase.CONVERTING, "rewriting model", "", size, size // 4) in steps
    files = {f"m-0000{number}-of-00002.gguf": shard(workshop, number - 1, 2) for number in (1, 2)}
    steps = list(create(workshop.store, CreateRequest(name="n", files=files)))
    assert [(step.completed, step.total) for step in steps if step.status == "joining shards"] == [(16, 64), (48, 64)]
    with pytest.raises(CreateFailedError, match="canceled"):
        list(create(workshop.store, CreateRequest(name="n", files=files), stopped=lambda: True))


def test_layers_are_inherited_and_text_layers_replaced(workshop):
    workshop.create_plain("base", template="{{ .Prompt }}", system="old", parameters={"top_k": 10, "temperature": 1})
    steps = workshop.create(
        "full", base="BASE", system="Answer in rhymes.", licenses=("Use it!",) * 2, parameters={"temperature": 0.6},
        messages=(Message(role="USER", content="hi"),), renderer="", requires="1.2.3", backend="ctransformers",
    )  # fmt: skip
    assert [step.rpartition(" ")[0] for step in steps] == [
        "using existing layer", "using existing layer", "creating new layer", "creating new layer",
        "using existing layer", "creating new layer", "creating new layer", "writing", "",
    ]  # fmt: skip
    assert workshop.layers("full") == [
        ("model", "base:latest"), ("template", "base:latest"), ("system", ""), ("license", ""), ("license", ""),
        ("params", ""), ("messages", ""),
    ]  # fmt: skip
    assert steps[2].endswith(digest_of(b"Answer in rhymes."))
    assert steps[3].endswith(digest_of(b"Use it!"))
    assert workshop.text("full", "params") == '{"temperature":0.6,"top_k":10}\n'
    assert workshop.text("full", "messages") == '[{"role":"user","content":"hi"}]\n'
    assert '"requires":"1.2.3","backend":"ctransformers","architecture"' in workshop.config("full")
    workshop.create("child", base="full")
    assert workshop.layers("child")[-1] == ("params", "")  # parameters are always written anew, after what is inherited
    assert '"requires":"1.2.3","backend":"ctransformers","architecture"' in workshop.config("child")


def test_a_known_chat_template_brings_its_go_template(workshop):
    steps = workshop.create_plain("m", ("tokenizer.chat_template", "str", CHATML + "{# mine #}"))
    assert steps[2:] == ["using autodetected template chatml", new(CHATML_STOP), *DONE]
    assert workshop.layers() == [("model", "a.gguf"), ("template", ""), ("params", "")]
    assert "<|im_start|>" in workshop.text("m", "template")
    steps = workshop.create_plain(
        "m", ("tokenizer.chat_template", "str", CHATML), template="{{ .Prompt }}x", parameters={"z": 1}
    )
    assert workshop.layers() == [("model", "a.gguf"), ("template", ""), ("params", "")]
    assert workshop.text("m", "params") == '{"stop":["\\u003c|im_start|\\u003e","\\u003c|im_end|\\u003e"],"z":1}\n'


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("gemma4", "gemma4"),
        ("laguna", "laguna"),
        ("nemotron_h", "nemotron-3-nano"),
        ("nemotron_h_omni", "nemotron-3-nano"),
    ],
)
def test_some_architectures_have_a_renderer_and_a_parser(workshop, architecture, name):
    workshop.create_plain("m", (f"{architecture}.block_count", "u32", 1), architecture=architecture)
    assert f'"renderer":"{name}","parser":"{name}"' in workshop.config()
    workshop.create_plain("n", architecture=architecture, renderer="x")
    assert f'"renderer":"x","parser":"{name}"' in workshop.config("n")
    if architecture == "gemma4":
        assert workshop.text("m", "params") == '{"stop":["\\u003cturn|\\u003e"]}\n'
        workshop.create("o", base="m", parameters={"stop": ["a"]})
        assert workshop.text("o", "params") == '{"stop":["a"]}\n'


def test_files_are_sorted_and_told_apart(workshop):
    clip = workshop.gguf(("clip.has_vision_encoder", "bool", True), architecture="clip")
    typed = workshop.gguf(
        ("clip.has_vision_encoder", "bool", True), ("clip.projector_type", "str", "ldp"), architecture="clip"
    )
    adapter = workshop.gguf(("general.type", "str", "adapter"))
    vision = workshop.gguf(("zed.vision.block_count", "u32", 1))
    steps = workshop.create(
        files={"z.bin": workshop.gguf(), "a.gguf": clip, "b.gguf": typed, "c.gguf": adapter, "d.gguf": vision}
    )
    assert steps[:6] == ["parsing GGUF"] * 5 + ["updating GGUF projector metadata"]
    assert workshop.layers() == [
        ("projector", ""), ("projector", "b.gguf"), ("adapter", "c.gguf"), ("projector", "d.gguf"), ("model", "z.bin"),
    ]  # fmt: skip
    header = workshop.store.get(ModelName.parse("m")).projectors[0]
    assert header.metadata["clip.projector_type"] == "mlp"
    assert header.tensors[0].name == "v.x"


def test_the_completed_projector_has_the_references_bytes(workshop):
    clip = workshop.gguf(
        ("clip.has_vision_encoder", "bool", True), ("clip.vision.block_count", "u32", 2), architecture="clip"
    )
    steps = workshop.create(files={"a.gguf": clip})
    assert steps[2] == new("sha256:1ce2c3187aca33ba946f3cf5edeb9ce442561fcda46d5ee43e6d661262b45b80")


def shard(workshop, number, count):
    return workshop.gguf(
        ("split.no", "u16", number),
        ("split.count", "u16", count),
        ("split.tensors.count", "i32", 2),
        tensors=[(f"v.x{number}", (4,), 0, bytes([number]) * 16)],
    )


def test_shards_are_joined_to_the_references_bytes(workshop):
    files = {"m-00001-of-00002.gguf": shard(workshop, 0, 2), "d/m-00002-of-00002.gguf": shard(workshop, 1, 2)}
    steps = workshop.create(files=files)
    digest = "sha256:7242aaa43d83b62492ed3ca9f84cb14b74b7221e8c3597539bcc0ea7a7d74f48"
    assert steps == ["parsing GGUF", "parsing GGUF", new(digest), *DONE]
    assert workshop.layers() == [("model", "")]
    path = workshop.store.blobs.path(digest)
    tensors = gguf.read(path).tensors
    assert [tensor.name for tensor in tensors] == ["v.x0", "v.x1"]
    assert path.read_bytes()[-16:] == b"\1" * 16


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["m.gguf"], 'split GGUF "m.gguf" must use llama.cpp split filename pattern'),
        (["m-00001-of-00002.gguf"], 'split GGUF "m-00001-of-00002.gguf" has 1 shards, expected 2'),
        (
            ["m-00002-of-00002.gguf"],
            'split GGUF "m-00002-of-00002.gguf" filename index 1 does not match metadata index 0',
        ),
        (
            ["m-00001-of-00003.gguf"],
            'split GGUF "m-00001-of-00003.gguf" filename count 3 does not match metadata count 2',
        ),
    ],
)
def test_shards_must_fit_together(workshop, names, text):
    with pytest.raises(CreateFailedError) as caught:
        workshop.create(files={name: shard(workshop, number, 2) for number, name in enumerate(names)})
    assert str(caught.value) == text


def test_adapters_and_drafts_are_added(workshop):
    workshop.create_plain("base")
    adapter = workshop.gguf(("general.type", "str", "adapter"))
    draft = workshop.gguf(architecture="small")
    steps = workshop.create("m", base="base", adapters={"a.gguf": adapter}, draft_files={"d.gguf": draft})
    assert steps[:2] == ["parsing GGUF"] * 2
    assert workshop.layers() == [("model", "base:latest"), ("adapter", "a.gguf"), ("draft", "d.gguf")]
    assert '"draft":{"model_format":"gguf","architecture":"small"}' in workshop.config()
    with pytest.raises(InvalidCreateError, match="only one adapter is currently supported"):
        workshop.create("m", base="base", adapters={"a.gguf": adapter, "b.gguf": adapter})
    quantized = workshop.gguf(("general.file_type", "u32", 7))
    with pytest.raises(CreateFailedError, match="draft quantization requires an unquantized draft model, got Q8_0"):
        workshop.create("m", base="base", draft_files={"d.gguf": quantized}, draft_quantize="q8_0")


def test_a_stub_of_a_remote_model_has_no_files(workshop):
    info = {
        "capabilities": ["tools", "completion"], "model_family": "gptoss", "base_name": "b", "quantization_level": "MX",
        "parameter_size": "20B", "context_length": 100, "embedding_length": 7.0,
    }  # fmt: skip
    assert workshop.create(base="gpt-oss:20b", remote_host="ollama.com", info=info) == DONE
    assert json.loads(workshop.manifest())["layers"] is None
    assert workshop.config() == (
        '{"model_format":"","model_family":"gptoss","model_families":["gptoss"],"model_type":"20B","file_type":"MX",'
        '"remote_host":"https://ollama.com:443","remote_model":"gpt-oss:20b","capabilities":["tools","completion"],'
        '"context_length":100,"embedding_length":7,"base_name":"b","architecture":"amd64","os":"linux"}\n'
    )
    workshop.create(base="u/foo:20b-cloud", adapters={"a.gguf": MISSING})
    assert json.loads(workshop.manifest())["layers"] is None
    assert '"remote_host":"https://ollama.com:443","remote_model":"u/foo:20b"' in workshop.config()


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"context_length": -1}, 'info field "context_length" must be a non-negative integer'),
        ({"context_length": 1.5}, 'info field "context_length" must be a non-negative integer'),
        ({"context_length": "1"}, 'info field "context_length" must be a number'),
        ({"embedding_length": True}, 'info field "embedding_length" must be a number'),
        ({"model_family": None}, 'info field "model_family" must be a string'),
    ],
)
def test_overrides_are_checked(workshop, info, text):
    workshop.create_plain("base")
    with pytest.raises(InvalidCreateError) as caught:
        workshop.create(base="base", info=info)
    assert str(caught.value) == text


@pytest.mark.parametrize("name", ["/a.gguf", "../a.gguf", "a/../b.gguf", "a//b.gguf", "./a.gguf", ""])
@pytest.mark.parametrize("field", ["files", "draft_files"])
def test_paths_must_be_plain(workshop, name, field):
    with pytest.raises(InvalidCreateError, match=r"^file path must be relative$"):
        workshop.create("bad name", **{field: {name: "x"}})


def test_requests_are_checked_before_anything_is_done(workshop):
    for field in ("files", "adapters", "draft_files"):
        with pytest.raises(InvalidDigestError):
            workshop.create("bad name", **{field: {"a.gguf": ""}})
    with pytest.raises(InvalidCreateError, match="--draft-quantize requires a DRAFT model"):
        workshop.create("bad name", draft_quantize="q8_0")
    for name in ("", "bad name", " m", "m:"):
        with pytest.raises(InvalidModelNameError):
            workshop.create(name, base="x")
    with pytest.raises(InvalidCreateError, match="neither 'from' or 'files' was specified"):
        workshop.create()
    for base in (" ", "a b", "foo:cloud:local", "a b:cloud"):
        with pytest.raises(InvalidCreateError, match="invalid model name"):  # not of the model that is being made
            workshop.create(base=base)
    with pytest.raises(InvalidCreateError, match="DRAFT cannot be used with remote models"):
        workshop.create(base="x", remote_host="x", draft_files={"d.gguf": MISSING})


def test_files_are_checked_as_the_reference_does(workshop):
    hello = workshop.upload(b"hello")
    for files in ({}, {"a.txt": hello}, {"a.GGUF": "zz"}, {"a.bin": MISSING}):
        with pytest.raises(InvalidCreateError, match=r"^unknown type$"):
            workshop.create(files=files)
    with pytest.raises(InvalidCreateError, match=r"^supplied file was not in GGUF format$"):
        workshop.create(files={"a.gguf": hello})
    with pytest.raises(InvalidDigestError, match=r"^invalid digest format$"):
        workshop.create(files={"a.gguf": "zzz"})
    with pytest.raises(NotUploadedError, match=r"^open .*/blobs/sha256-3+: no such file or directory$"):
        workshop.create(files={"a.gguf": MISSING})
    with pytest.raises(GGUFError, match=r"^unexpected EOF$"):
        workshop.create(files={"a.gguf": workshop.upload(b"GGUF\3\0\0\0" + bytes(9))})
    workshop.create_plain("base")
    with pytest.raises(NotUploadedError, match=r"^open .*/blobs/sha256-3+: no such file or directory$"):
        workshop.create(base="base", adapters={"a.gguf": MISSING})
    with pytest.raises(InvalidDigestError):
        workshop.create(base="base", draft_files={"a.gguf": "zz"})
    with pytest.raises(InvalidCreateError, match=r"^open config\.json: no such file or directory$"):
        workshop.create(files={"a.safetensors": hello})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ .Prompt", "template error: template: :1: unclosed action"),
        ("{{ nofunc .Prompt }}", 'template error: template: :1: function "nofunc" not defined'),
    ],
)
def test_a_bad_template_makes_nothing(workshop, template, text):
    workshop.create_plain("base")
    with pytest.raises(InvalidCreateError) as caught:
        workshop.create("m", base="base", template=template)
    assert str(caught.value) == text
    assert [each.name.model for each in workshop.store.list()] == ["base"]


def test_a_missing_base_is_pulled_and_its_success_kept_back(workshop):
    with pytest.raises(TransferError, match=r"^pull model manifest: "):
        workshop.create(base="nothere")

    def pull(name):
        yield TransferStep(JobPhase.READING_MANIFEST, "pulling manifest")
        workshop.create_plain(name.model)
        yield TransferStep(JobPhase.DONE, "success")

    steps = [step.status for step in create(workshop.store, CreateRequest(name="m", base="far"), pull=pull)]
    assert (steps[0], steps.count("success"), steps[-1]) == ("pulling manifest", 1, "success")


def test_a_creation_that_is_closed_early_makes_nothing(workshop):
    workshop.create_plain("base")
    making = create(workshop.store, CreateRequest(name="m", base="base", system="x"))
    assert next(making).status.startswith("using existing layer")
    making.close()
    assert [each.name.model for each in workshop.store.list()] == ["base"]
    workshop.store.delete(ModelName.parse("base"))  # nothing is claimed any more
    assert [path for path in workshop.store.blobs.folder.iterdir() if path.stat().st_size > 4] == []
