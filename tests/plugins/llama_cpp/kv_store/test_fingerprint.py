import hashlib
import shutil

import pytest

from puna_ggml_kernels import loader
from puna_llama_cpp.kv_store import fingerprint as fingerprint_module
from puna_llama_cpp.kv_store.fingerprint import ModelIdentity


def proceed():
    pass


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


def test_the_content_of_a_file_counts_and_not_its_place(model, tmp_path):
    other = tmp_path / "copy.gguf"
    shutil.copy(model, other)
    before = ModelIdentity((str(model),), {}).fingerprint(proceed)
    assert ModelIdentity((str(other),), {}).fingerprint(proceed) == before
    other.write_bytes(b"Weights")
    assert ModelIdentity((str(other),), {}).fingerprint(proceed) != before


def test_a_file_of_the_store_is_known_by_its_name(model, tmp_path):
    blob = tmp_path / f"sha256-{hashlib.sha256(b'weights').hexdigest()}"
    blob.write_bytes(b"WEIGHTS")  # not read, so the difference is not seen
    fingerprints = [ModelIdentity((str(path),), {}).fingerprint(proceed) for path in (model, blob)]
    assert fingerprints[0] == fingerprints[1]


def test_adapters_settings_and_libraries_count(model, tmp_path, monkeypatch):
    adapter = tmp_path / "adapter"
    adapter.write_bytes(b"a")
    identities = [
        ModelIdentity((str(model),), {"length": 256}),
        ModelIdentity((str(model), str(adapter)), {"length": 256}),
        ModelIdentity((str(adapter), str(model)), {"length": 256}),
        ModelIdentity((str(model),), {"length": 512}),
        ModelIdentity((str(model),), {"length": 256, "kv_cache_type": "q8_0"}),
    ]
    found = {identity.fingerprint(proceed) for identity in identities}
    monkeypatch.setattr(fingerprint_module, "_engine_digests", lambda check: ["other"])
    found.add(identities[0].fingerprint(proceed))
    monkeypatch.setattr(loader, "installed", lambda: None if loader.install() else object())
    monkeypatch.setattr(loader, "LIBRARY", adapter)
    found.add(identities[0].fingerprint(proceed))
    assert len(found) == len(identities) + 2


def test_it_can_be_given_up(model):
    def give_up():
        raise TimeoutError

    with pytest.raises(TimeoutError):
        ModelIdentity((str(model),), {}).fingerprint(give_up)
