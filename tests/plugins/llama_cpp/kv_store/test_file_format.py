import io

import numpy as np
import pytest

from puna_llama_cpp.kv_store import file_format
from puna_llama_cpp.kv_store.file_format import BLOCK_BYTES, DamagedFileError, Secret

TOKENS = np.arange(300, dtype=np.int32)
STATE = np.random.default_rng(1).integers(0, 256, BLOCK_BYTES + 1000, np.uint8)
SECRET = Secret("open sesame")


def proceed():
    pass


@pytest.fixture(params=[None, SECRET], ids=["plain", "encrypted"])
def secret(request):
    return request.param


@pytest.fixture
def path(tmp_path, secret):
    header = file_format.new_header("there", len(TOKENS), len(STATE), 0.25, encrypted=secret is not None)
    with (tmp_path / "file").open("wb") as file:
        file_format.write(file, header, TOKENS, STATE, secret, proceed)
        assert file.tell() == file_format.file_bytes(header)
    return tmp_path / "file"


def test_what_is_written_is_read(path, secret):
    with io.FileIO(path) as file:
        header, tokens = file_format.read_tokens(file, "there", secret)
        state = file_format.read_state(file, "there", tokens, secret, proceed)
    assert header.prefill_token_seconds == 0.25
    assert np.array_equal(tokens, TOKENS)
    assert np.array_equal(state, STATE)


def test_an_encrypted_file_shows_neither_tokens_nor_state(path, secret):
    shown = path.read_bytes()
    assert (TOKENS.tobytes() in shown) is (secret is None)
    assert (STATE[:64].tobytes() in shown) is (secret is None)


@pytest.mark.parametrize("place", [0, 9, 13, 40, 400, 2000, BLOCK_BYTES, -1])
def test_one_changed_bit_is_noticed(path, secret, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedFileError), io.FileIO(path) as file:
        file_format.read_state(file, "there", TOKENS, secret, proceed)


@pytest.mark.parametrize("length", [0, 10, 100, 1000, BLOCK_BYTES])
def test_a_file_that_was_cut_is_noticed(path, secret, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedFileError), io.FileIO(path) as file:
        file_format.read_tokens(file, "there", secret)


def test_a_file_that_has_grown_is_noticed(path, secret):
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DamagedFileError), io.FileIO(path) as file:
        file_format.read_tokens(file, "there", secret)


def test_a_file_of_another_partition_is_refused(path, secret):
    with pytest.raises(DamagedFileError), io.FileIO(path) as file:
        file_format.read_tokens(file, "elsewhere", secret)


def test_other_tokens_than_expected_are_refused(path, secret):
    with pytest.raises(DamagedFileError), io.FileIO(path) as file:
        file_format.read_state(file, "there", TOKENS + 1, secret, proceed)


def test_another_secret_opens_nothing(path, secret):
    for other in (Secret("other"), None if secret else SECRET):
        with pytest.raises(DamagedFileError), io.FileIO(path) as file:
            file_format.read_tokens(file, "there", other)


def test_blocks_cannot_change_places(tmp_path):
    state = np.zeros(2 * BLOCK_BYTES, np.uint8)
    state[BLOCK_BYTES:] = 1
    header = file_format.new_header("there", len(TOKENS), len(state), 0.0, encrypted=True)
    buffer = io.BytesIO()
    file_format.write(buffer, header, TOKENS, state, SECRET, proceed)
    data, sealed = buffer.getvalue(), BLOCK_BYTES + 16
    path = tmp_path / "file"
    path.write_bytes(data[: -2 * sealed] + data[-sealed:] + data[-2 * sealed : -sealed])
    with pytest.raises(DamagedFileError), io.FileIO(path) as file:
        file_format.read_state(file, "there", TOKENS, SECRET, proceed)


def test_writing_and_reading_can_be_given_up(path, secret):
    def give_up():
        raise TimeoutError

    with pytest.raises(TimeoutError), io.FileIO(path) as file:
        file_format.read_state(file, "there", TOKENS, secret, give_up)
    header = file_format.new_header("there", len(TOKENS), len(STATE), 0.0, encrypted=secret is not None)
    with pytest.raises(TimeoutError):
        file_format.write(io.BytesIO(), header, TOKENS, STATE, secret, give_up)
