import math

import pytest

from puna.errors import OptionRangeError, OptionTypeError
from puna.options import Options, merge


def test_defaults_are_the_reference_s():
    options = merge()
    assert (options.temperature, options.top_k, options.top_p, options.min_p) == (0.8, 40, 0.9, 0.0)
    assert (options.repeat_last_n, options.repeat_penalty, options.seed, options.num_predict) == (64, 1.0, -1, -1)
    assert options.stop == ()


def test_later_layers_win_key_by_key_and_lists_are_replaced():
    options = merge({"top_k": 10, "stop": ["a", "b"], "temperature": 1}, {"top_k": None, "stop": ["c"]})
    assert (options.top_k, options.stop, options.temperature) == (10, ("c",), 1.0)


def test_integers_may_be_any_number_and_are_cut_toward_zero():
    options = merge({"num_ctx": 10.9, "seed": -1.9, "num_predict": 1e3})
    assert (options.num_ctx, options.seed, options.num_predict) == (10, -1, 1000)


def test_unknown_names_are_ignored():
    assert merge({"mirostat": 2, "NUM_CTX": 5}) == Options()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"num_ctx": "4096"}, 'option "num_ctx" must be of type integer'),
        ({"num_ctx": True}, 'option "num_ctx" must be of type integer'),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "x"}, 'option "stop" must be of type array'),
        ({"stop": ["x", 1]}, 'option "stop" must be of an array of strings'),
    ],
)
def test_wrong_types_are_refused(option, text):
    with pytest.raises(OptionTypeError) as caught:
        merge(option)
    assert str(caught.value) == text


def test_unknown_names_are_logged_once_and_in_few_words(caplog):
    merge({f"name{number}" + "x" * 100: 1 for number in range(10_000)})
    (record,) = caplog.records
    assert "name0" in record.getMessage()
    assert "and 9995 more" in record.getMessage()
    assert len(record.getMessage()) < 500


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"num_keep": 2**40}, 'option "num_keep" must be between -2147483647 and 2147483647'),
        ({"num_keep": -(2**70)}, 'option "num_keep" must be between -2147483647 and 2147483647'),
        ({"num_ctx": math.inf}, 'option "num_ctx" must be finite'),
        ({"seed": math.nan}, 'option "seed" must be finite'),
        ({"temperature": -math.inf}, 'option "temperature" must be finite'),
    ],
)
def test_values_out_of_range_are_refused(option, text):
    with pytest.raises(OptionRangeError) as caught:
        merge(option)
    assert str(caught.value) == text
