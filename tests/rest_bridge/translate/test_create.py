import json

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import models_pb2
from puna_rest.bodies import native
from puna_rest.errors import RestError
from puna_rest.translate import create

DIGEST = "sha256:" + "0" * 64
CONVERTING = models_pb2.JOB_PHASE_CONVERTING


def request(**body):
    return create.request(*decoded(native.CREATE, body))


def test_fields():
    found = request(
        model="m",
        files={"a/b.gguf": DIGEST},
        adapters={"x": DIGEST},
        template="t",
        system="s",
        parameters={"top_k": 1},
        info={"a": [1.0]},
        quantize="q4_0",
        requires="1.0",
        messages=[{"role": "user", "content": "hi"}],
    )
    assert (found.name, found.template, found.system, found.quantize) == ("m", "t", "s", "q4_0")
    assert [(each.name, each.digest) for each in found.files] == [("a/b.gguf", DIGEST)]
    assert json.loads(found.parameters_json) == {"top_k": 1}
    assert found.info_json == '{"a":[1.0]}'
    assert found.messages[0].content == "hi"


def test_old_names_of_fields_stand_in_for_the_new_ones():
    found = request(name="m", quantization="q8_0")
    assert (found.name, found.quantize) == ("m", "q8_0")
    found = request(model="new", name="old", quantize="q4_0", quantization="q8_0")
    assert (found.name, found.quantize) == ("new", "q4_0")


def test_no_files_are_told_from_an_empty_list():
    assert not request().has_files
    assert request(files={}).has_files


@pytest.mark.parametrize("name", ["/a", "../a", "a/../b", "a//b", "a/", "", "./a", ".."])
@pytest.mark.parametrize("field", ["files", "draft_files"])
def test_paths_must_stay_below_the_folder(field, name):
    with pytest.raises(RestError, match=r"^file path must be relative$"):
        request(**{field: {name: DIGEST}})


@pytest.mark.parametrize("name", ["a", "a/b", ".hidden", "..a", "a b/c", "."])
def test_relative_paths(name):
    assert request(files={name: DIGEST}).files[0].name == name


@pytest.mark.parametrize("field", ["files", "draft_files", "adapters"])
def test_a_digest_must_be_given(field):
    with pytest.raises(RestError, match=r"^invalid digest format$"):
        request(**{field: {"a": ""}})


def test_a_draft_is_quantized_only_if_there_is_one():
    with pytest.raises(RestError, match=r"^--draft-quantize requires a DRAFT model$"):
        request(draft_quantize="q4_0")
    assert request(draft_quantize="q4_0", draft_files={"a": DIGEST}).draft_quantize == "q4_0"


@pytest.mark.parametrize(("given", "licenses"), [("MIT", ["MIT"]), (["a", "b"], ["a", "b"]), ("", []), (None, [])])
def test_licenses(given, licenses):
    assert list(request(license=given, **{"from": "base"}).licenses) == licenses


def test_a_license_that_is_no_text_fails_the_job_and_only_if_there_is_a_source():
    with pytest.raises(create.JobError) as caught:
        request(license=3, **{"from": "base"})
    assert caught.value.status == 500
    assert list(request(license=3).licenses) == []


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"status": "<a>"}, '{"status":"\\u003ca\\u003e"}'),
        (
            {"status": "p", "digest": "d", "total_bytes": 9, "completed_bytes": 4},
            '{"status":"p","digest":"d","total":9,"completed":4}',
        ),
        ({"status": "p", "digest": "d", "total_bytes": 9}, '{"status":"p","digest":"d","total":9}'),
        ({"status": "converting model", "phase": CONVERTING}, '{"status":"converting model"}'),
        # Ollama does not tell how far a conversion is.
        ({"status": "converting model", "phase": CONVERTING, "total_bytes": 9, "completed_bytes": 4}, ""),
    ],
)
def test_progress_lines_leave_zeros_out(fields, line):
    assert create.line(models_pb2.PullModelResponse(progress=models_pb2.JobProgress(**fields))) == line


def test_puna_s_own_fields():
    found = request(
        model="m", backend="shelf", format="crate", upstream="big", backend_options={"level": 1, "voice": "deep"}
    )
    assert (found.backend, found.format, found.upstream) == ("shelf", "crate", "big")
    assert found.backend_options_json == '{"level":1,"voice":"deep"}'
    assert request(model="m").backend_options_json == ""


def test_a_model_of_an_upstream_keeps_its_license():
    assert request(model="m", backend="away", upstream="x", license="MIT").licenses == ["MIT"]
