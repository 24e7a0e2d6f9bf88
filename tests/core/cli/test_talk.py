import pytest
from google.protobuf.duration_pb2 import Duration

from puna.cli import talk
from puna.cli.errors import CommandError
from puna_client.v1 import usage_pb2


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.png", "b c.jpg", "s.WAV", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("prompt", "rest", "media"),
    [
        ("what is ./a.png ?", "what is  ?", [b"a.png"]),
        ("a.png", "", [b"a.png"]),
        ("~/a.png", "", [b"a.png"]),
        (r"see b\ c.jpg", "see", [b"b c.jpg"]),
        ("hear s.WAV and see a.png", "hear  and see", [b"s.WAV", b"a.png"]),
        ("'a.png'", "''", [b"a.png"]),
        ("  missing.png ", "  missing.png ", []),
        ("notes.txt", "notes.txt", []),
        ("a.pngx", "a.pngx", []),
    ],
)
def test_names_of_existing_pictures_and_sounds_leave_the_prompt(files, prompt, rest, media):
    assert talk.take_media(prompt) == (rest, media)


def test_the_user_sees_what_is_sent(files, capsys):
    talk.take_media("a.png s.WAV")
    assert capsys.readouterr().err == "Added image 'a.png'\nAdded audio 's.WAV'\n"


def test_files_that_are_too_large_are_refused_unread(files):
    with (files / "big.png").open("wb") as file:
        file.truncate(talk.LARGEST_MEDIA + 1)
    with pytest.raises(CommandError, match=r"^big\.png: larger than 100 MB$"):
        talk.take_media("big.png")


def test_metrics():
    finish = usage_pb2.Finish(
        usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=10),
        timings=usage_pb2.Timings(total=Duration(seconds=3), decode=Duration(seconds=2)),
    )
    assert [line.split(":") for line in talk.metrics(finish)] == [
        ["total duration", "       3s"],
        ["load duration", "        0s"],
        ["prompt eval count", "    3 token(s)"],
        ["eval count", "           10 token(s)"],
        ["eval duration", "        2s"],
        ["eval rate", "            5.00 tokens/s"],
    ]
