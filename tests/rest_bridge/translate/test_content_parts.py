from puna_client.v1 import message_pb2, options_pb2
from puna_rest.translate.content_parts import Content

IMAGE = options_pb2.Media(data=b"i")


def written(content: Content) -> message_pb2.ChatMessage:
    message = message_pb2.ChatMessage()
    content.write(message)
    return message


def test_text_alone_and_media_alone_need_no_parts() -> None:
    content = Content()
    content.add("a")
    content.add("")
    content.add("b")
    assert written(content) == message_pb2.ChatMessage(content="ab")
    content = Content()
    content.add(IMAGE)
    assert written(content) == message_pb2.ChatMessage(media=[IMAGE])
    assert not Content()


def test_a_mixture_keeps_its_order() -> None:
    content = Content()
    for part in (IMAGE, "a", IMAGE):
        content.add(part)
    assert written(content) == message_pb2.ChatMessage(parts=[{"media": IMAGE}, {"text": "a"}, {"media": IMAGE}])


def test_paragraphs_have_an_empty_line_between_them() -> None:
    content = Content()
    content.add_paragraph("a")
    content.add("b")
    content.add("c")
    content.add_paragraph("")
    content.add_paragraph("d")
    assert content.text == "a\n\nbc\n\nd"
