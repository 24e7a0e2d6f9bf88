"""The prompt of a conversation, by either of the two ways, cut to the context by whole messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from puna.messages import Message, Think, Tool
from puna.models.stored import StoredModel
from puna.prompt.builtin import Renderer
from puna.prompt.render import Rendered, render_go
from puna.prompt.truncate import fit
from puna.runtime.wanted import Lease
from puna.serving.forms import Forms

TOKENS_PER_IMAGE: Final = 768
"""What a picture is taken to need, before anybody has looked at it."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Renders messages for one request."""

    model: StoredModel
    forms: Forms
    lease: Lease
    renderer: Renderer | None
    tools: Sequence[Tool]
    think: Think | None
    truncate: bool

    async def prompt(self, messages: Sequence[Message]) -> Rendered:
        """Render the messages, without the oldest if they do not fit. TemplateError: the template refuses."""
        if not self.truncate or self.model.config.model_format == "safetensors":
            return self.render(messages)
        per_image = TOKENS_PER_IMAGE if self.model.projector_paths else 0
        return await fit(messages, self.render, self._count, self.lease.facts.context_length, per_image=per_image)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Render these messages."""
        if self.native:
            chat_template = self.forms.chat_template(self.lease.facts)
            text = chat_template.render(messages, self.tools, think=self.think)
            return Rendered(text, tuple(media for message in messages for media in message.media))
        if self.renderer is not None:
            return self.renderer.render(messages, self.tools, self.think)
        return render_go(self.forms.template, messages, self.tools, self.think)

    @property
    def native(self) -> bool:
        """Whether the model file's own template renders."""
        return self.model.mode == "native"

    async def _count(self, text: str) -> int:
        return len(await self.lease.model.tokenize(text, add_special=False, parse_special=True))
