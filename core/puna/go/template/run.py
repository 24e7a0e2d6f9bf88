"""The state of one evaluation of a template: output, variables, current node."""

from collections.abc import Callable, Mapping
from typing import Any

from puna.errors import TemplateError
from puna.go import json as gojson
from puna.go.template.budget import Budget
from puna.go.template.functions import Function
from puna.go.template.nodes import Node
from puna.go.template.values import Value

Evaluate = Callable[["Run", Any], Any]
"""Returns a value for a run and the dot."""


class Run:
    """One evaluation of a template, or of a template that it calls."""

    __slots__ = ("budget", "functions", "lenient", "name", "node", "out", "source", "steps", "variables")

    def __init__(
        self,
        *,
        name: str,
        source: str,
        out: list[str],
        data: object,
        functions: Mapping[str, Function],
        steps: Callable[[str], Callable[["Run", Any], Any] | None],
        lenient: bool,
        budget: Budget,
    ) -> None:
        """`steps` returns a defined template by name. `lenient`: a missing key gives MISSING, not the zero value."""
        self.name = name
        self.source = source
        self.out = out
        self.functions = functions
        self.steps = steps
        self.lenient = lenient
        self.budget = budget
        self.node: Node | None = None
        # Pairs are lists, so that an assignment in an inner scope changes the variable of the outer one.
        self.variables: list[list[Any]] = [["$", data]]

    def nested(self, name: str, data: object) -> "Run":
        """Return the run of a called template, which does not see the variables."""
        run = Run(
            name=name,
            source=self.source,
            out=self.out,
            data=data,
            functions=self.functions,
            steps=self.steps,
            lenient=self.lenient,
            budget=self.budget,
        )
        run.node = self.node
        return run

    def variable(self, name: str) -> Value:
        """Return the innermost variable of a name."""
        self.budget.spend(len(self.variables) >> 4)
        # The innermost variable hides others of its name.
        for known in reversed(self.variables):
            if known[0] == name:
                return known[1]
        raise self.error(f"undefined variable: {name}")

    def assign(self, name: str, value: object) -> None:
        """Assign to the innermost variable of a name."""
        self.budget.spend(len(self.variables) >> 4)
        for known in reversed(self.variables):
            if known[0] == name:
                known[1] = value
                return
        raise self.error(f"undefined variable: {name}")

    def error(self, message: str) -> TemplateError:
        """Return Go's error for the node visited last."""
        if self.node is None:
            return TemplateError(f"template: : {message}")
        before = self.source[: self.node.position]
        line_start = before.rfind("\n") + 1
        # Go counts columns in bytes.
        column = len(before[line_start:].encode("utf-8", "surrogateescape"))
        place = f"template: :{1 + before.count(chr(10))}:{column}"
        return TemplateError(f"{place}: executing {gojson.quote(self.name)} at <{self.node}>: {message}")
