"""A parsed template that can be run."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from puna.errors import TemplateError
from puna.go.template.budget import Budget
from puna.go.template.evaluate import Step, compile_list
from puna.go.template.functions import FUNCTIONS, Function
from puna.go.template.nodes import ListNode
from puna.go.template.run import Run

_STRAY_BYTES: Final = re.compile("[\udc80-\udcff]")


class Template:
    """A template: its text, its tree, and the templates it defines. Compiled when first run; safe to share."""

    __slots__ = ("_steps", "definitions", "names", "root", "text")

    def __init__(self, text: str, root: ListNode, definitions: Mapping[str, ListNode]) -> None:
        """`definitions` maps names to trees and may hold the root as ""."""
        self.text = text
        self.root = root
        self.definitions = {**definitions, "": root}
        self.names: frozenset[str] | None = None
        """Names that are used, once they were asked for: see puna.go.template.facts."""
        self._steps: dict[str, Step] = {}

    def execute(
        self,
        data: Mapping[str, Any],
        *,
        functions: Mapping[str, Function] = FUNCTIONS,
        lenient: bool = False,
        budget: Budget | None = None,
    ) -> str:
        """Run the template over `data`. Raises TemplateError with Go's text.

        `lenient`: a missing key is no value at all, of which any field may be asked (Go's default), not a nil.
        `budget` is what the run may do (BudgetSpentError); None: it has no bound.
        """
        out: list[str] = []
        run = Run(
            name="",
            source=self.text,
            out=out,
            data=data,
            functions=functions,
            steps=self._step,
            lenient=lenient,
            budget=budget or Budget(),
        )
        try:
            step = self._step("")
            if step is not None:
                step(run, data)
        except RecursionError:
            raise TemplateError("template: exceeded maximum template depth (100000)") from None
        return _whole("".join(out))

    def _step(self, name: str) -> Callable[[Run, Any], Any] | None:
        if name not in self._steps:
            if name not in self.definitions:
                return None
            self._steps[name] = compile_list(self.definitions[name])
        return self._steps[name]


def _whole(text: str) -> str:
    """Join the halves of characters that templates cut, and replace those that have no other half."""
    if not _STRAY_BYTES.search(text):
        return text
    joined = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return _STRAY_BYTES.sub("\ufffd", joined)
