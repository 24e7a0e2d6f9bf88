"""Which parser reads output of which form."""

from collections.abc import Sequence

from puna.messages import Think, Tool
from puna.prompt.jinja import channels, recipients
from puna.prompt.jinja.parser import OutputParser
from puna.prompt.layout import Form
from puna.prompt.parsed import AnswerParser


def parser(form: Form, tools: Sequence[Tool], opened: str, think: Think | None) -> AnswerParser:
    """Return a parser of output that has a form; `opened` is what of the answer stands in the prompt already."""
    if form is channels.FORM:
        return channels.ChannelParser(tools, opened)
    if form is recipients.FORM:
        return recipients.RecipientParser(tools, opened, think)
    return OutputParser(form, tools, opened)
