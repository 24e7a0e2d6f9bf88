"""The content of a message whose client gives text and media in order."""

from puna_client.v1 import message_pb2, options_pb2


class Content:
    """Text and media in the order in which they were added, and paragraphs of text."""

    def __init__(self) -> None:
        self._parts: list[str | options_pb2.Media] = []
        self._begins = False
        """The next text begins a paragraph."""

    def __bool__(self) -> bool:
        """Return whether there is any text or medium."""
        return bool(self._parts)

    @property
    def text(self) -> str:
        """All texts together."""
        return "".join([part for part in self._parts if isinstance(part, str)])

    @property
    def media(self) -> list[options_pb2.Media]:
        """All media."""
        return [part for part in self._parts if not isinstance(part, str)]

    def add(self, part: str | options_pb2.Media) -> None:
        """Add a text or a medium."""
        if isinstance(part, str):
            if not part:
                return
            # An empty line stands between paragraphs, and not in front of the first.
            if self._begins and self.text:
                part = f"\n\n{part}"
            self._begins = False
        self._parts.append(part)

    def add_paragraph(self, text: str) -> None:
        """Add a text with an empty line between it and the texts around it."""
        self._begins = True
        self.add(text)
        self._begins = True

    def write(self, message: message_pb2.ChatMessage) -> None:
        """Write the content into a message that has none: as parts if text and media are mixed."""
        text, media = self.text, self.media
        if not (text and media):
            message.content = text
            message.media.extend(media)
            return
        for part in self._parts:
            if isinstance(part, str):
                message.parts.add(text=part)
            else:
                message.parts.add(media=part)
