import gguf
import numpy as np
from tools.bench.answers import Outcome, Stream
from tools.bench.memory_limit import bandwidth, bytes_per_token
from tools.bench.report import shares_of


def model(path, tensors, **integers):
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in integers.items():
        writer.add_uint32(f"llama.{name}", value)
    for name, elements in tensors.items():
        writer.add_tensor(name, np.zeros(elements, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_token_reads_a_row_of_the_embeddings_alone(tmp_path):
    found = model(tmp_path / "m.gguf", {"token_embd.weight": 1000, "output.weight": 600, "blk.0.attn_q.weight": 200})
    assert bytes_per_token(found) == 4 * 800


def test_embeddings_that_are_the_output_too_are_read_whole(tmp_path):
    found = model(tmp_path / "m.gguf", {"token_embd.weight": 1000, "blk.0.attn_q.weight": 200})
    assert bytes_per_token(found) == 4 * 1200


def test_of_the_experts_those_in_use_are_read(tmp_path):
    tensors = {"output.weight": 100, "blk.0.ffn_up_exps.weight": 800, "blk.0.ffn_up_shexp.weight": 50}
    found = model(tmp_path / "m.gguf", tensors, expert_count=8, expert_used_count=2)
    assert bytes_per_token(found) == 4 * (100 + 200 + 50)


def test_the_share_is_that_of_decoding_and_unknown_where_nothing_was_counted():
    stream = Stream(0.0, [1.0, 1.5, 2.0], 3)
    silent = Stream(0.0, [1.0, 2.0], 0)
    found = shares_of({"a": [Outcome(2.0, [stream])], "b": [Outcome(2.0, [silent])]}, 4.0)
    assert found == {"a": [0.5], "b": [None]}


def test_the_bandwidth_is_that_of_a_memory():
    assert 1e8 < bandwidth(2, passes=2) < 1e13
