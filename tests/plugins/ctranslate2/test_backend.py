"""Loading."""

import json
import shutil
from pathlib import Path

import pytest

from puna.backend import InvalidRequestError, ModelSpec, SequenceRequest
from puna.testing import collect
from puna_ctranslate2 import CTranslate2Backend


async def load(folder, **values):
    spec = ModelSpec(**{"path": str(folder), "format": "ctranslate2", "context_length": 64, "threads": 1} | values)
    return await CTranslate2Backend().load(spec, lambda _: None)


@pytest.fixture
def copied(decoder, tmp_path):
    return Path(shutil.copytree(decoder, tmp_path / "copied"))


async def test_weights_can_be_held_as_another_type(decoder):
    model = await load(decoder, backend_options={"compute_type": "int8"})
    assert (await collect(model, SequenceRequest(prompt="<|user|>hi<|assistant|>", max_tokens=4))).text
    await model.aclose()


@pytest.mark.parametrize("missing", ["model.bin", "tokenizer.json", "vocabulary.json"])
async def test_a_folder_that_lacks_a_file_is_refused_by_its_name(copied, missing):
    (copied / missing).unlink()
    with pytest.raises(InvalidRequestError, match=missing):
        await load(copied)


async def test_a_file_that_is_no_json_is_refused_by_its_name(copied):
    (copied / "config.json").write_text("{")
    with pytest.raises(InvalidRequestError, match=r"config\.json is not JSON"):
        await load(copied)


@pytest.mark.parametrize(("change", "text"), [(-1, "tokenizer.json has more tokens"), (1, "do not belong together")])
async def test_files_that_do_not_fit_each_other_are_refused(copied, change, text):
    spellings = json.loads((copied / "vocabulary.json").read_text())
    spellings = spellings[:change] if change < 0 else [*spellings, "another"]
    (copied / "vocabulary.json").write_text(json.dumps(spellings))
    with pytest.raises(InvalidRequestError, match=text):
        await load(copied)


async def test_adapters_are_refused(decoder):
    with pytest.raises(InvalidRequestError, match="adapters"):
        await load(decoder, adapter_paths=("/a",))


async def test_a_translator_is_refused(copied):
    content = (copied / "model.bin").read_bytes()
    name = b"TransformerDecoderSpec"
    (copied / "model.bin").write_bytes(content.replace(name, b"TransformerTwosideSpec", 1))
    with pytest.raises(InvalidRequestError, match="TransformerTwosideSpec"):
        await load(copied)
