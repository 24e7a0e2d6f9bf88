from puna.messages import Message
from puna.prompt.media_markers import marked


def message(content: str, *places: int, count: int = 0) -> Message:
    return Message(role="user", content=content, media=(b"x",) * (count or len(places)), media_at=places)


def test_media_stand_in_their_places() -> None:
    assert marked(message("ab", 1, 2), 0) == ("", "a[img-0]b[img-1]")
    assert marked(message("ab", 0, 0, 1, 1), 3) == ("[img-3][img-4]", "a[img-5][img-6]b")


def test_a_text_that_looks_like_a_place_stays_where_the_places_are_given() -> None:
    assert marked(message("[img]a", 6), 0) == ("", "[img]a[img-0]")


def test_other_media_take_the_places_in_the_text_or_stand_in_front() -> None:
    assert marked(message("a [img] b", count=2), 0) == ("[img-1]", "a [img-0] b")
