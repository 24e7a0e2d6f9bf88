import pytest

from puna.models.create.rewrite import RewriteError, with_program

rewrite = with_program("puna_llama_cpp.quantize")


def test_copying_writes_the_references_bytes_and_tells_its_progress(tmp_path, scripted_models, sha256):
    target = tmp_path / "out"
    progress = list(rewrite(scripted_models / "embedder.gguf", target, "COPY"))
    assert sha256(target.read_bytes()) == "7e5f18db8035b6fd531fba0e03aa0ce7c348926816c8944dada14dc696dd3a5d"
    assert progress
    assert progress[-1][0] == progress[-1][1]


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(
        RewriteError,
        match=r"^llama-quantize failed: exit status 1: llama_model_loader: failed to load model from nothing$",
    ):
        list(rewrite(tmp_path / "nothing", tmp_path / "out", "COPY"))


def test_closing_early_ends_the_process(tmp_path, scripted_models):
    running = rewrite(scripted_models / "scripted.gguf", tmp_path / "out", "Q8_0")
    next(running)
    running.close()  # a process left behind would be a ResourceWarning, which is an error here
