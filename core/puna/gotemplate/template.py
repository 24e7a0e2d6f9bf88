"""A parsed template that can be run."""

from collections.abc import Mapping
from typing import Any

from puna.gotemplate.nodes import ListNode


class Template:
    """A template: its text, its tree, and the templates it defines."""

    __slots__ = ("definitions", "root", "text")

    def __init__(self, text: str, root: ListNode, definitions: Mapping[str, ListNode]) -> None:
        """`definitions` maps names to trees and may hold the root as ""."""
        self.text = text
        self.root = root
        self.definitions = definitions

    def execute(self, data: Mapping[str, Any]) -> str:
        """Run the template over `data`. Raises TemplateError with Go's text."""
        raise NotImplementedError
