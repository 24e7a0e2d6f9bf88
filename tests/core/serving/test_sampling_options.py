from dataclasses import replace

import pytest

from puna.errors import InvalidFormatError, OptionRangeError, UnsupportedConstraintError
from puna.limits import LARGEST_INT32, Limits
from puna.messages import Tool
from puna.model_name import ModelName
from puna.model_settings import ConfiguredModels, ModelSettings
from puna.options import merge
from puna.serving.requests import OutputConstraint, RequestOptions
from puna.serving.sampling_options import (
    check_size,
    context_length,
    merged_options,
    model_requirements,
    output_constraint,
    sampling,
    shifts,
    token_limit,
)
from puna.settings import Settings


@pytest.fixture
def plain(stocked):
    return stocked.get(ModelName.parse("plain"))


@pytest.mark.parametrize(
    ("asked", "settings", "got"),
    [
        ({}, Settings(), 4096),
        ({}, Settings(context_length=1000), 1000),
        ({"num_ctx": 77}, Settings(context_length=1000), 77),
        ({"num_ctx": 1}, Settings(), 4),
        ({"num_ctx": 10**12}, Settings(limits=Limits(max_context_tokens=5000)), 5000),
    ],
)
def test_the_context_is_that_of_the_request_within_bounds(plain, asked, settings, got):
    assert context_length(plain, merge(asked), settings) == got


@pytest.mark.parametrize(("num_predict", "most"), [(-1, 1000), (-2, 1000), (0, 0), (7, 7), (5000, 1000)])
def test_no_answer_is_longer_than_ten_contexts(num_predict, most):
    assert token_limit(merge({"num_predict": num_predict}), 100) == most


def test_only_what_something_set_causes_a_reload(plain):
    asked = RequestOptions()
    assert model_requirements(plain, merge({}), asked, Settings()).automatic == {"context_length", "batch_size"}
    assert model_requirements(plain, merge({"num_ctx": 9}), asked, Settings()).automatic == {"batch_size"}


def configured(**values):
    return Settings(model_settings=ConfiguredModels((ModelSettings(name="plain", **values),)))


def test_options_of_the_configuration_lie_between_the_model_and_the_request(stocked):
    full = stocked.get(ModelName.parse("full"))
    own = ModelSettings(name="full", options={"num_predict": 5, "top_k": 7, "seed": 1})
    settings = Settings(model_settings=ConfiguredModels((own,)))
    options = merged_options(full, RequestOptions(values={"top_k": 8, "seed": None}), settings)
    assert (options.temperature, options.num_predict, options.top_k, options.seed) == (0.5, 5, 8, 1)
    assert not options.unset & {"seed", "num_predict", "temperature"}
    assert merged_options(full, RequestOptions(), Settings()).num_predict == 3


@pytest.mark.parametrize(("asked", "got"), [(None, 100), (-1, 100), (-2, 100), (0, 0), (7, 7), (101, 100)])
def test_the_configuration_bounds_the_answers_of_a_model(plain, asked, got):
    request = RequestOptions(values={"num_predict": asked})
    options = merged_options(plain, request, configured(max_output_tokens=100))
    assert options.num_predict == got
    # A backend that forwards requests sends only what is set.
    assert "num_predict" not in options.unset


@pytest.mark.parametrize(("asked", "got"), [({}, 100), ({"num_ctx": 101}, 100), ({"num_ctx": 99}, 99)])
def test_the_configuration_bounds_the_context_of_a_model(plain, asked, got):
    assert context_length(plain, merge(asked), configured(max_context_tokens=100)) == got


def test_the_configuration_says_how_a_model_is_loaded(plain):
    settings = configured(num_parallel=3)
    found = model_requirements(plain, merge({}), RequestOptions(), replace(settings, num_parallel=9))
    assert found.spec.parallel == 3
    assert model_requirements(plain, merge({}), RequestOptions(), Settings(num_parallel=9)).spec.parallel == 9


def test_numbers_fit_the_wire(plain):
    options = merge({"num_gpu": 2**40, "top_k": -(2**40), "main_gpu": 2**33})
    spec = model_requirements(plain, options, RequestOptions(), Settings()).spec
    assert (spec.gpu_layers, spec.main_gpu) == (LARGEST_INT32, LARGEST_INT32)
    assert sampling(options, RequestOptions()).top_k == -LARGEST_INT32


@pytest.mark.parametrize(
    ("option", "name"), [("num_thread", "PUNA_MAX_THREADS"), ("num_batch", "PUNA_MAX_BATCH_TOKENS")]
)
def test_too_much_of_the_machine_is_refused(plain, option, name):
    with pytest.raises(OptionRangeError, match=name):
        model_requirements(plain, merge({option: 10**6}), RequestOptions(), Settings())


def test_a_negative_seed_is_random_and_others_have_32_bits():
    assert sampling(merge({"seed": -1}), RequestOptions()).seed is None
    assert sampling(merge({"seed": 2**32 + 5}), RequestOptions()).seed == 5


def test_json_of_any_kind_is_an_object():
    assert output_constraint(OutputConstraint("json_object")).text == '{"type":"object"}'
    assert output_constraint(OutputConstraint("json_schema", ' "json" ')).text == '{"type":"object"}'
    assert output_constraint(None) is None


@pytest.mark.parametrize("text", ["[]", "3", "{", '"xml"', "[" * 100_000])
def test_what_is_no_schema_is_refused(text):
    with pytest.raises(InvalidFormatError):
        output_constraint(OutputConstraint("json_schema", text))


def test_a_constraint_that_is_too_large_names_its_part():
    tool = Tool(name="f", parameters="x" * 11)
    request = RequestOptions(constraint=OutputConstraint("gbnf", "x" * 10))
    check_size(request, (), 10)
    with pytest.raises(UnsupportedConstraintError, match="format is too large: it has 10 bytes"):
        check_size(request, (), 9)
    with pytest.raises(UnsupportedConstraintError, match='tool "f" is too large: it has 11 bytes'):
        check_size(request, (tool,), 20)


def test_whether_a_context_is_shifted_is_the_requests_or_the_familys(plain):
    assert shifts(plain, RequestOptions())
    assert not shifts(plain, replace(RequestOptions(), shift=False))


def test_a_backend_learns_which_parameters_nothing_sets():
    options = merge({"temperature": 0.8, "stop": ["x"]}, {"num_predict": 5, "seed": None})
    assert set(sampling(options, RequestOptions()).unset) == {
        *("top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "repeat_penalty"),
        *("presence_penalty", "frequency_penalty", "seed"),
    }
    assert "max_tokens" in sampling(merge({}), RequestOptions()).unset


def test_an_unknown_context_bounds_no_answer():
    assert token_limit(merge({}), 0) == LARGEST_INT32
    assert token_limit(merge({"num_predict": 5}), 0) == 5
