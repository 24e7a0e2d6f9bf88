import numpy as np
import pytest

from puna_llama_cpp.kv_store import store as store_module
from puna_llama_cpp.kv_store.file_format import Secret
from puna_llama_cpp.kv_store.folder import CacheFolder
from puna_llama_cpp.kv_store.store import SequenceStore

CHAT = list(range(100))
STATE = np.arange(256, dtype=np.uint8)


def proceed():
    pass


@pytest.fixture
def make_store(tmp_path):
    def make_store(fingerprint=b"model", secret=None, shortest_cut=lambda length: 0, most=1 << 20):
        return SequenceStore(CacheFolder(tmp_path / "cache", most), fingerprint, secret, shortest_cut)

    return make_store


def write(store, tokens, salt="", state=STATE):
    return store.write(tokens, salt, state, 0.001, proceed)


def find(store, tokens, salt=""):
    found = store.find(tokens, salt, len(tokens))
    return found.common if found else 0


def test_another_process_finds_what_one_has_written(make_store):
    first, second = make_store(), make_store()
    assert find(second, CHAT) == 0
    assert write(first, CHAT)
    found = second.find([*CHAT[:60], 7, 7], "", 62)
    assert (found.common, found.header.prefill_token_seconds) == (60, 0.001)
    assert np.array_equal(second.read(found, proceed), STATE)


def test_the_longest_beginning_wins(make_store):
    store = make_store()
    write(store, [*CHAT[:50], 1, 1])
    write(store, [*CHAT[:70], 2, 2])
    assert find(store, CHAT) == 70


def test_at_most_what_is_reusable_is_served(make_store):
    store = make_store()
    write(store, CHAT)
    assert store.find(CHAT, "", 99).common == 99


@pytest.mark.parametrize("secret", [None, Secret("secret")])
def test_salts_and_models_are_kept_apart(make_store, secret):
    store = make_store(secret=secret)
    write(store, CHAT, "mine")
    assert find(store, CHAT, "mine") == 100
    assert find(store, CHAT, "yours") == find(store, CHAT) == find(make_store(b"other", secret), CHAT, "mine") == 0


def test_other_secrets_find_nothing_and_destroy_nothing(make_store):
    store = make_store(secret=Secret("one"))
    write(store, CHAT)
    assert find(make_store(), CHAT) == find(make_store(secret=Secret("two")), CHAT) == 0
    assert find(make_store(secret=Secret("one")), CHAT) == 100


def test_a_chat_that_goes_on_takes_the_place_of_its_beginning(make_store, tmp_path):
    store = make_store()
    write(store, CHAT)
    write(store, [*CHAT, 5])
    assert len(list(tmp_path.rglob("*.kv"))) == 1
    assert store.covered([*CHAT, 5], "") == 101


def test_a_model_that_needs_whole_states_keeps_the_beginning_too(make_store, tmp_path):
    store = make_store(shortest_cut=lambda length: length)
    write(store, CHAT)
    write(store, [*CHAT, 5])
    assert len(list(tmp_path.rglob("*.kv"))) == 2
    assert find(store, [*CHAT, 6]) == 100
    assert find(store, CHAT[:50]) == 0
    assert store.covered(CHAT[:50], "") == 0
    assert store.covered([*CHAT, 6], "") == 100


@pytest.mark.parametrize("place", [200, -100])
def test_a_damaged_file_is_dropped(make_store, tmp_path, place, caplog):
    write(make_store(), CHAT)
    (path,) = tmp_path.rglob("*.kv")
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    store = make_store()
    found = store.find(CHAT, "", 100)
    assert found is None or store.read(found, proceed) is None
    assert not path.exists()
    assert "is removed" in caplog.text
    assert find(store, CHAT) == 0


def test_a_file_with_the_content_of_another_is_dropped(make_store, tmp_path, caplog):
    write(make_store(), CHAT)
    (kept,) = tmp_path.rglob("*.kv")
    write(make_store(), CHAT[::-1])
    (other,) = set(tmp_path.rglob("*.kv")) - {kept}
    other.write_bytes(kept.read_bytes())
    store = make_store()
    assert (find(store, CHAT), find(store, CHAT[::-1])) == (100, 0)
    assert caplog.text.count("is removed") == 1
    assert write(store, CHAT[::-1])
    assert find(make_store(), CHAT[::-1]) == 100


def test_a_file_that_another_process_has_removed_is_a_miss(make_store, tmp_path):
    store = make_store()
    write(store, CHAT)
    found = store.find(CHAT, "", 100)
    (path,) = tmp_path.rglob("*.kv")
    path.unlink()
    assert store.read(found, proceed) is None
    assert store.find(CHAT, "", 100) is None


def test_a_sequence_that_does_not_fit_is_not_kept(make_store, caplog):
    store = make_store(most=100)
    assert not write(store, CHAT)
    assert "does not fit" in caplog.text
    assert find(store, CHAT) == 0


def test_salts_of_clients_take_no_memory_without_files(make_store, monkeypatch):
    monkeypatch.setattr(store_module, "_MAX_PARTITIONS", 2)
    store = make_store()
    for number in range(5):
        assert find(store, CHAT, f"empty {number}") == 0
        write(store, CHAT, str(number))
        assert len(store._partitions) <= 3  # the newest was written after the last look
    assert find(store, CHAT, "0") == 100


def test_the_same_sequence_is_written_once(make_store, tmp_path):
    first, second = make_store(), make_store()
    write(first, CHAT)
    (path,) = tmp_path.rglob("*.kv")
    before = path.stat().st_ino
    assert write(second, CHAT)
    assert path.stat().st_ino == before
