import pytest

from puna.cli.tables import (
    duration,
    human_bytes,
    human_parameters,
    metadata_value,
    relative_time,
    section,
    table,
)


def test_a_table_has_four_spaces_behind_each_cell():
    rows = [("emb:latest", "dcfaa2ca61ca"), ("scripted:latest", "a7e37fc5dc77")]
    assert table(("NAME", "ID"), rows).splitlines() == [
        "NAME               ID           ",
        "emb:latest         dcfaa2ca61ca    ",
        "scripted:latest    a7e37fc5dc77    ",
    ]


def test_an_empty_table_is_its_header():
    assert table(("NAME", "ID"), []) == "NAME    ID "


def test_a_section_is_indented_and_closed_by_an_empty_line():
    assert section("Capabilities", [("completion",), ("tools",)]) == (
        "  Capabilities\n    completion    \n    tools         \n"
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1200, "1.2 KB"),
        (95072, "95 KB"),
        (744384, "744 KB"),
        (5_500_000, "5.5 MB"),
        (1_000_000_000, "1 GB"),
        (1_960_000_000_000, "2.0 TB"),
    ],
)
def test_human_bytes(size, text):
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(361, "361"), (184192, "184K"), (125_000_000, "125M"), (134_515_008, "134.52M"), (8 * 10**9, "8B")],
)
def test_human_parameters(count, text):
    assert human_parameters(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.4, "Less than a second ago"),
        (-1.2, "1 second ago"),
        (-59, "59 seconds ago"),
        (-61, "About a minute ago"),
        (-150, "2 minutes ago"),
        (-3700, "About an hour ago"),
        (-5400, "2 hours ago"),
        (-47 * 3600, "47 hours ago"),
        (-3 * 86400, "3 days ago"),
        (-15 * 86400, "2 weeks ago"),
        (-70 * 86400, "2 months ago"),
        (-800 * 86400, "2 years ago"),
        (299, "4 minutes from now"),
        (10**10, "Forever"),
    ],
)
def test_relative_time(seconds, text):
    assert relative_time(seconds) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (7, "7ns"),
        (685_520, "685.52µs"),
        (512_130_411, "512.130411ms"),
        (134_017_000, "134.017ms"),
        (1_500_000_000, "1.5s"),
        (63_500_000_000, "1m3.5s"),
        (3_600_000_000_000, "1h0m0s"),
    ],
)
def test_duration(nanoseconds, text):
    assert duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["h e"], "[h e]"),
        ([3] * 366, "[3 3 3 ...+363 more]"),
        (["<|endoftext|>", "a"], "[<|endoftext|> ...+1 more]"),
        (4096, "4096"),
        (1e-5, "1e-05"),
        (False, "false"),
        ("llama", "llama"),
        (None, "<nil>"),
    ],
)
def test_metadata_values(value, text):
    assert metadata_value(value) == text
