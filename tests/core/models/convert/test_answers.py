"""Models made from folders answer through Puna, with llama.cpp in a host of its own, as numpy says they must."""

import numpy as np
import pytest
from tests.core.models.convert import folders, forward, tokenizers
from tests.core.models.convert.test_conversion import uploaded
from tests.core.models.convert.test_lora import adapter
from tests.core.serving.asking import answered, prompted

from puna.plugins import Registry
from puna.runtime.pool import ModelPool
from puna.sandbox.sandbox import Sandbox
from puna.serving.core import Serving
from puna.serving.requests import EmbedRequest
from puna.settings import Settings


@pytest.fixture
async def serving(workshop):
    settings = Settings()
    async with ModelPool(Registry.discover(), settings) as pool, Sandbox(settings.limits) as sandbox:
        yield Serving(workshop.store, pool, settings, sandbox=sandbox)


def greedy(folder, count):
    """Return what the model writes behind " the cat". It must not be a matter of rounding."""
    begun = [tokenizers.BEGIN, *(tokenizers.BPE_TOKENS.index(word) for word in ("Ġthe", "Ġcat"))]
    out = list(begun)
    for _ in range(count):
        found = forward.logits(folder, out)[-1]
        best = np.sort(found)
        assert best[-1] - best[-2] > 0.05
        out.append(int(found.argmax()))
    return tokenizers.text_of(out[len(begun) :])


async def test_text(workshop, serving, tmp_path):
    async def written(model):
        request = prompted(model, " the cat", values={"temperature": 0, "num_predict": 6})
        deltas, done = await answered(serving.generate(request))
        assert (done.usage.prompt_tokens, done.usage.output_tokens) == (3, 6)
        return "".join(delta.text for delta in deltas)

    folder = folders.llama()
    workshop.create("m", files=uploaded(workshop, folder.write(tmp_path / "m", kind="F16")), template="{{ .Prompt }}")
    plain = await written("m")
    assert plain == greedy(folder, 6)
    workshop.create("n", base="m", adapters=uploaded(workshop, adapter(folder, tmp_path / "a")))
    adapted = await written("n")
    assert adapted == greedy(folder, 6)
    assert adapted != plain


async def test_vectors(workshop, serving, tmp_path):
    folder = folders.bert()
    workshop.create("b", files=uploaded(workshop, folders.write_sentences(folder, tmp_path / "b", kind="F16")))
    answer = await serving.embed(EmbedRequest(model="b", inputs=("the cats",)))
    known = folder.files["tokenizer.json"]["model"]["vocab"]
    tokens = [known[each] for each in ("[CLS]", "the", "cat", "##s", "[SEP]")]
    assert answer.vectors[0] == pytest.approx(forward.embedding(folder, tokens), abs=0.003)
