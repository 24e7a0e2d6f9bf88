"""A parsed template that can be evaluated."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from puna.errors import TemplateError
from puna.go.template.budget import Budget
from puna.go.template.evaluate import Step, compile_list
from puna.go.template.functions import FUNCTIONS, Function
from puna.go.template.nodes import ListNode
from puna.go.template.run import Run

# Python decodes an invalid byte to one of these code points (surrogateescape).
_STRAY_BYTES: Final = re.compile("[\udc80-\udcff]")


class Template:
    """A template: text, tree and the templates that it defines. It is compiled on its first run, and safe to share."""

    __slots__ = ("_steps", "definitions", "names", "root", "text")

    def __init__(self, text: str, root: ListNode, definitions: Mapping[str, ListNode]) -> None:
        """`definitions` maps names to trees. The name "" may be the root."""
        self.text = text
        self.root = root
        self.definitions = {**definitions, "": root}
        self.names: frozenset[str] | None = None
        """Cache of puna.go.template.facts.identifiers."""
        self._steps: dict[str, Step] = {}

    def execute(
        self,
        data: Mapping[str, Any],
        *,
        functions: Mapping[str, Function] = FUNCTIONS,
        lenient: bool = False,
        budget: Budget | None = None,
    ) -> str:
        """Return the output of the template for `data`.

        Args:
            data: the dot.
            functions: the functions that the template may call.
            lenient: whether a missing key gives MISSING, of which fields may be accessed, as by Go's default. Otherwise
                it gives the zero value.
            budget: the bound on the run, or None.

        Raises:
            TemplateError: the evaluation failed. The text is Go's.
            BudgetSpentError: the budget is spent.
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
        # Python's stack ends long before Go's limit, which gives the same error to a template that calls itself
        # forever.
        except RecursionError:
            raise TemplateError("template: exceeded maximum template depth (100000)") from None
        return _whole("".join(out))

    def _step(self, name: str) -> Callable[[Run, Any], Any] | None:
        # A defined template is compiled at its first call: most runs of a template reach only some of them. Two threads
        # may both compile it, with equal results.
        if name not in self._steps:
            if name not in self.definitions:
                return None
            self._steps[name] = compile_list(self.definitions[name])
        return self._steps[name]


def _whole(text: str) -> str:
    """Join surrogates to characters where a template cut one in two, and replace lone surrogates by U+FFFD."""
    if not _STRAY_BYTES.search(text):
        return text
    joined = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return _STRAY_BYTES.sub("\ufffd", joined)
