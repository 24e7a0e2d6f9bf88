from puna_llama_cpp.binding.machine import physical_cores, threads_for


def test_small_models_get_one_thread_and_large_ones_every_core():
    assert threads_for(3_000_000) == 1
    assert threads_for(140_000_000) == physical_cores() >= 1
