import pytest

from puna.models.facts.numerals import byte_size, parameter_size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"), (999, "999"), (1000, "1K"), (22_592, "23K"), (361_000, "361K"), (999_999, "1000K"),
        (125_000_000, "125M"), (134_515_008, "134.52M"), (500_500_000, "500.50M"), (8_000_000_000, "8B"),
        (2_850_000_000, "2.9B"), (2_750_000_000, "2.8B"), (999_999_999, "1000.00M"), (1_000_000_000_000, "1000B"),
    ],
)  # fmt: skip
def test_parameters_are_counted_as_printf_rounds(count, text):
    assert parameter_size(count) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (511_130, "511 KB"),
        (1_200, "1.2 KB"),
        (10**9, "1 GB"),
        (1_999_999_999_999, "2.0 TB"),
    ],
)
def test_sizes_have_a_decimal_only_where_it_tells_something(size, text):
    assert byte_size(size) == text
