"""PUNA_KERNELS, as the process of a model obeys it."""

from pathlib import Path

import pytest
from tests.e2e.server import MODELS, serving


def maps(server):
    """The files that the model's process has in its memory."""
    (host,) = server.hosts()
    return Path(f"/proc/{host}/maps").read_text()


@pytest.mark.kernels
@pytest.mark.parametrize(("setting", "loaded"), [({}, True), ({"PUNA_KERNELS": "0"}, False)])
def test_the_setting_keeps_the_kernels_out_of_the_process(tmp_path, setting, loaded):
    with serving(tmp_path / "models", **setting) as server:
        server.upload("scripted", MODELS / "scripted.gguf")
        asked = {"model": "scripted", "prompt": "2", "raw": True, "stream": False}
        assert server.json("/api/generate", asked)["done"]
        assert "libggml-cpu" in maps(server)
        assert ("puna_ggml_kernels" in maps(server)) == loaded
