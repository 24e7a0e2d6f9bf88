import json

import pytest

from puna.cli.errors import CommandError
from puna.cli.show import in_place_row, sections, show
from puna.settings import Settings
from puna_client.v1 import models_pb2

INFO = {"general.architecture": "llama", "general.parameter_count": 1_500_000_000, "llama.context_length": 4096}


def shown(*, verbose=False, **fields):
    return "\n".join(sections(models_pb2.GetModelResponse(**fields), verbose=verbose))


def test_facts_of_the_file_come_before_those_of_the_config():
    text = shown(
        model=models_pb2.Model(
            details=models_pb2.ModelDetails(family="old", parameter_size="7B", quantization_level="Q4")
        ),
        model_info_json=json.dumps(INFO),
    )
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert ["architecture", "llama"] in lines
    assert ["parameters", "1.5B"] in lines
    assert ["context", "length", "4096"] in lines
    assert ["quantization", "Q4"] in lines
    assert "embedding length" not in text


def test_without_a_file_the_config_tells():
    text = shown(model=models_pb2.Model(details=models_pb2.ModelDetails(family="old", parameter_size="7B")))
    assert [line.split() for line in text.splitlines() if line.strip()][1:] == [
        ["architecture", "old"],
        ["parameters", "7B"],
    ]


def test_only_the_first_lines_of_long_texts():
    text = shown(license="\n one \n\n two\n three", system="be brief")
    assert [line.strip() for line in text[text.index("License") :].splitlines()[1:] if line.strip()] == [
        "one",
        "two",
        "...",
    ]
    assert "be brief" in text


def test_the_settings_of_the_configuration_have_the_keys_of_its_file():
    settings = models_pb2.ModelSettings(
        pin=True,
        aliases=["gpt-4o", "fast"],
        options_json='{"num_ctx":64,"stop":["a"]}',
        num_parallel=2,
        max_queue=0,
        sets=["large"],
    )
    settings.keep_alive.forever = True
    settings.load_timeout.FromSeconds(0)
    text = shown(settings=settings)
    rows = [line.split() for line in text[text.index("Settings on this server") :].splitlines()[1:] if line.strip()]
    assert rows == [
        ["pin", "true"],
        ["alias", "gpt-4o"],
        ["alias", "fast"],
        ["keep_alive", "forever"],
        ["load_timeout", "never"],
        ["num_parallel", "2"],
        ["max_queue", "0"],
        ["options.num_ctx", "64"],
        ["options.stop", '["a"]'],
        ["set", "large"],
    ]
    settings.keep_alive.duration.FromMilliseconds(1500)
    assert "1.5s" in shown(settings=settings)
    assert "Settings" not in shown()


@pytest.mark.parametrize("verbose", [True, False])
def test_metadata_and_tensors_only_if_asked_for(verbose):
    text = shown(
        verbose=verbose,
        model_info_json=json.dumps(INFO),
        tensors=[models_pb2.TensorInfo(name="output.weight", type="F32", shape=[2, 3])],
    )
    assert ("general.parameter_count" in text) is verbose
    assert ("[2 3]" in text) is verbose


@pytest.mark.parametrize(
    ("place", "state", "row"),
    [
        (models_pb2.LINK_KIND_HARD, models_pb2.FILE_STATE_UNCHANGED, ("/a", "hard link", "unchanged")),
        (models_pb2.LINK_KIND_SYMBOLIC, models_pb2.FILE_STATE_CHANGED, ("/a", "symbolic link", "touched since")),
        (models_pb2.LINK_KIND_SYMBOLIC, models_pb2.FILE_STATE_MISSING, ("/a", "symbolic link", "gone")),
        (models_pb2.LINK_KIND_UNSPECIFIED, models_pb2.FILE_STATE_UNSPECIFIED, ("/a", "", "")),
    ],
)
def test_files_outside_of_the_store(place, state, row):
    assert in_place_row(models_pb2.InPlaceFile(path="/a", link_kind=place, state=state)) == row


async def test_one_text_at_a_time_is_refused_before_a_server_is_asked():
    with pytest.raises(CommandError, match=r"^only one of '--license', .* or '--template' can be specified$"):
        await show(Settings(), "m", ["license", "system"], verbose=False)
