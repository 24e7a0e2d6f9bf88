import pytest

from puna.host.stream import Frames


@pytest.fixture
def frames():
    taken = []
    return Frames(taken.append, lambda: None), taken


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_messages_come_whole_however_they_are_cut(frames, step):
    end, taken = frames
    sent = [b"", b"a", b"\x00" * 300, b"last"]
    data = b"".join(len(each).to_bytes(4, "little") + each for each in sent)
    for start in range(0, len(data), step):
        end.data_received(data[start : start + step])
    assert taken == sent


def test_what_is_sent_to_nobody_is_lost(frames):
    end, _ = frames
    end.send(b"hello")
    end.close()
