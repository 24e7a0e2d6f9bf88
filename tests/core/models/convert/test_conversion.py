"""Creating from folders: the program, the status lines, and nothing left behind when it fails.

Status lines are Ollama's, as it wrote them when it was given the same folders.
"""

import importlib.util

import pytest
from tests.core.models.convert import folders, tokenizers
from tests.core.models.convert.test_lora import adapter

from puna.errors import CreateFailedError, InvalidCreateError
from puna.gguf import reader as gguf
from puna.models.convert import conversion
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.layout import manifest, media_types
from puna.models.progress import JobPhase

CHATML_STOP = "sha256:f02dd72bb2423204352eabc5637b44d79d17f109fdb510a7c51455892aa2d216"


def uploaded(workshop, path):
    """Upload a folder; return digests by name."""
    files = (each for each in sorted(path.rglob("*")) if each.is_file())
    return {each.relative_to(path).as_posix(): workshop.upload(each.read_bytes()) for each in files}


def head(workshop, name, kind=media_types.MODEL):
    layer = manifest.loads(workshop.manifest(name)).last(kind)
    return gguf.read(workshop.store.blobs.path(layer.digest), arrays=True)


def left_behind(workshop):
    """Return what is neither a blob nor a manifest."""
    return [path.name for path in workshop.store.blobs.folder.iterdir() if len(path.name) != len("sha256-") + 64]


def test_a_model(workshop, tmp_path):
    files = uploaded(workshop, folders.llama().write(tmp_path / "m", shards=2))
    steps = workshop.create("m", files=files)
    model = manifest.loads(workshop.manifest("m")).last(media_types.MODEL).digest
    assert steps == [
        "converting model",
        "verifying conversion",
        f"creating new layer {model}",
        "using autodetected template chatml",
        f"creating new layer {CHATML_STOP}",
        "writing manifest",
        "success",
    ]
    assert workshop.layers("m") == [("model", ""), ("template", ""), ("params", "")]
    assert workshop.config("m") == (
        '{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"98K","file_type":"F16",'
        '"architecture":"amd64","os":"linux"}\n'
    )
    again = workshop.create("m2", files=files)
    assert f"using existing layer {model}" in again
    assert left_behind(workshop) == []


def test_the_references_keys(workshop, tmp_path):
    """All but the scores, which tokenizers of bytes don't use, and one more, which makes the second end end."""
    workshop.create("m", files=uploaded(workshop, folders.llama().write(tmp_path / "m")))
    found = head(workshop, "m")
    tokens = {name: value for name, value in found.metadata.items() if name.startswith("tokenizer.")}
    assert {name: value for name, value in found.metadata.items() if name not in tokens} == {
        "general.architecture": "llama",
        "general.file_type": 1,
        "general.quantization_version": 2,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "llama.block_count": 2,
        "llama.context_length": 512,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 96,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 500000.0,
        "llama.vocab_size": tokenizers.BPE_SIZE,
    }
    assert {name.removeprefix("tokenizer.ggml.") for name in tokens} == {
        *("model", "pre", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id", "eos_token_ids"),
        *("eot_token_id", "add_bos_token", "tokenizer.chat_template"),
    }
    assert {tensor.name for tensor in found.tensors if not tensor.name.startswith("blk.1.")} == {
        *("token_embd.weight", "output.weight", "output_norm.weight"),
        *(f"blk.0.{name}.weight" for name in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output")),
        *(f"blk.0.{name}.weight" for name in ("ffn_norm", "ffn_gate", "ffn_up", "ffn_down")),
    }


def test_progress_is_told_in_bytes(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr("puna.models.create.create._PROGRESS_SECONDS", 0)
    files = uploaded(workshop, folders.llama().write(tmp_path / "m"))
    steps = [each for each in create(workshop.store, CreateRequest(name="m", files=files)) if each.total]
    assert {(each.phase, each.status) for each in steps} == {(JobPhase.CONVERTING, "converting model")}
    assert [each.completed for each in steps] == sorted(each.completed for each in steps)
    assert steps[-1].completed == steps[-1].total > 0


@pytest.mark.parametrize(("wanted", "level"), [("q8_0", "Q8_0"), ("Q5_K", "Q5_K_M"), ("f16", "F16")])
def test_quantizing_on_the_way(wanted, level, workshop, tmp_path):
    steps = workshop.create("m", files=uploaded(workshop, folders.mistral().write(tmp_path / "m")), quantize=wanted)
    progress = [step for step in steps if step == f"quantizing F16 model to {level}"]
    assert [step for step in steps if step not in progress][:2] == ["converting model", "verifying conversion"]
    assert workshop.store.list()[0].details.quantization_level == level


def test_an_adapter_of_a_model_that_is_there(workshop, tmp_path):
    folder = folders.llama()
    workshop.create("m", files=uploaded(workshop, folder.write(tmp_path / "m")))
    steps = workshop.create("n", base="m", adapters=uploaded(workshop, adapter(folder, tmp_path / "a")))
    assert steps[0] == "converting adapter"
    assert "verifying conversion" not in steps
    assert workshop.layers("n") == [("model", "m:latest"), ("template", "m:latest"), ("adapter", ""), ("params", "")]
    assert head(workshop, "n", media_types.ADAPTER).metadata["adapter.lora.alpha"] == 16.0


def test_an_adapter_of_a_model_that_comes_with_it(workshop, tmp_path):
    folder = folders.qwen3()
    files = uploaded(workshop, folder.write(tmp_path / "m"))
    steps = workshop.create("n", files=files, adapters=uploaded(workshop, adapter(folder, tmp_path / "a")))
    assert steps[:3] == ["converting model", "converting adapter", "verifying conversion"]
    assert head(workshop, "n", media_types.ADAPTER).architecture == "qwen3"


def test_an_adapter_without_a_base(workshop, tmp_path):
    folder = folders.bert()
    workshop.create("m", files=uploaded(workshop, folders.write_sentences(folder, tmp_path / "m")))
    adapters = uploaded(workshop, adapter(folders.llama(), tmp_path / "a"))
    with pytest.raises(CreateFailedError, match=r"^unsupported architecture$"):
        workshop.create("n", base="m", adapters=adapters)


def without(name):
    return lambda folder: folder.files.pop(name)


@pytest.mark.parametrize(
    ("alter", "error", "text"),
    [
        (without("tokenizer.json"), CreateFailedError, "^unknown tokenizer format$"),
        (
            lambda f: f.config.update(architectures=["FooForCausalLM"]),
            CreateFailedError,
            '^unsupported architecture "FooForCausalLM"$',
        ),
        (lambda f: f.tensors.pop("model.norm.weight"), InvalidCreateError, "^there is nothing for the tensor"),
    ],
)
def test_what_fails_leaves_nothing(alter, error, text, workshop, tmp_path):
    folder = folders.llama()
    alter(folder)
    steps = create(workshop.store, CreateRequest(name="m", files=uploaded(workshop, folder.write(tmp_path / "m"))))
    assert next(steps).status == "converting model"
    with pytest.raises(error, match=text):
        next(steps)
    assert workshop.store.list() == []
    assert left_behind(workshop) == []


def test_what_is_known_to_fail_is_not_begun(workshop, tmp_path):
    files = uploaded(workshop, folders.llama().write(tmp_path / "m"))
    with pytest.raises(CreateFailedError, match=r"^unsupported quantization type Q9_9"):
        workshop.create(files=files, quantize="q9_9")
    with pytest.raises(CreateFailedError, match=r"no such file or directory$"):
        workshop.create(files=files | {"config.json": f"sha256:{'1' * 64}"})


def test_without_the_library(workshop, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else found(name))
    with pytest.raises(CreateFailedError, match=r"its extra convert .pip install \"puna\[convert\]\""):
        workshop.create(files={"a.safetensors": workshop.upload(b"")})


def test_a_program_that_crashes_is_not_the_clients_fault(tmp_path):
    path = folders.llama().write(tmp_path / "m")
    files = {each.name: each for each in path.iterdir()}
    with pytest.raises(CreateFailedError, match=r"^converting failed: exit status 1$"):
        list(conversion.convert(files, tmp_path / "nowhere" / "out"))


def test_giving_up_ends_it(workshop, tmp_path):
    files = uploaded(workshop, folders.llama().write(tmp_path / "m"))
    with pytest.raises(CreateFailedError, match=r"^request canceled$"):
        list(create(workshop.store, CreateRequest(name="m", files=files), stopped=lambda: True))
    assert workshop.store.list() == []
    assert left_behind(workshop) == []
