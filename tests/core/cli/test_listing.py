import json

import pytest

from puna.cli.listing import print_json, processor
from puna_client.v1 import models_pb2


@pytest.mark.parametrize(
    ("size", "vram", "share"),
    [
        (100, 0, "100% CPU"),
        (0, 0, "100% CPU"),
        (100, 100, "100% GPU"),
        (100, 120, "100% GPU"),
        (100, 25, "75%/25% CPU/GPU"),
        (3, 1, "67%/33% CPU/GPU"),
    ],
)
def test_the_share_of_processors_in_a_model_s_memory(size, vram, share):
    assert processor(size, vram) == share


def test_scripts_get_one_array_with_the_names_of_the_proto(capsys):
    print_json([models_pb2.Model(name="m", size_bytes=1)])
    assert json.loads(capsys.readouterr().out) == [{"name": "m", "size_bytes": "1"}]
    print_json([])
    assert json.loads(capsys.readouterr().out) == []
