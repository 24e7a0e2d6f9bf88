"""Chooses the parser for an output layout. Two layouts have parsers of their own, since headers rule their messages."""

from collections.abc import Sequence

from puna.messages import Think, Tool
from puna.prompt.jinja import channels, recipients
from puna.prompt.jinja.parser import OutputParser
from puna.prompt.layout import OutputLayout
from puna.prompt.parsed import AnswerParser


def parser(layout: OutputLayout, tools: Sequence[Tool], answer_prefix: str, think: Think | None) -> AnswerParser:
    """Return a new parser. `answer_prefix` is the beginning of the answer, which the prompt contains already."""
    if layout is channels.LAYOUT:
        return channels.ChannelParser(tools, answer_prefix)
    if layout is recipients.LAYOUT:
        return recipients.RecipientParser(tools, answer_prefix, think)
    return OutputParser(layout, tools, answer_prefix)
