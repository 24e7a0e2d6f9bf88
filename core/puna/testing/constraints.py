"""Contract tests of structured output."""

import json
import re
from dataclasses import dataclass, replace

from puna.backend import Constraint, InvalidRequestError, LoadedModel, UnsupportedError
from puna.testing.answers import Answer, collect, refused
from puna.testing.harness import PLAIN, ContractBase


@dataclass(frozen=True)
class Case:
    """A constraint, and a regular expression for the texts that it permits."""

    constraint: Constraint
    pattern: str
    prefix: str
    """The expression for the beginnings of such texts, of at least one character."""


def literal(text: str) -> str:
    """Return an expression for the beginnings of a text, including the empty one."""
    return "".join(f"(?:{re.escape(letter)}" for letter in text) + ")?" * len(text)


SPACE = r"[ \t\r\n]*"
WORDS = ("qz7-Zoë-🙂-xylophone", "jk9-Ωmega-日本-zebra")
"""Texts that no model writes by itself, with characters of two, three and four bytes."""
STARTS = "|".join(literal(word) for word in WORDS)
CASES = (
    Case(Constraint("json_schema", json.dumps({"enum": WORDS}, ensure_ascii=False)),
         rf'{SPACE}"(?:{"|".join(WORDS)})"{SPACE}', rf'{SPACE}(?:"(?:{STARTS})"?{SPACE})?'),
    Case(Constraint("json_schema", '{"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}'),
         rf"{SPACE}\[{SPACE}(?:true|false){SPACE}(?:,{SPACE}(?:true|false){SPACE}){{1,2}}\]{SPACE}",
         rf"{SPACE}(?:\[[ \t\r\n,truefals]*\]?{SPACE})?"),
    Case(Constraint("gbnf", f'root ::= "{WORDS[0]}" | "{WORDS[1]}"'), "|".join(WORDS), STARTS),
    Case(Constraint("lark", f'start: "{WORDS[0]}" | "{WORDS[1]}"'), "|".join(WORDS), STARTS),
    Case(Constraint("regex", "qz[0-9]{5,9}Z"), "qz[0-9]{5,9}Z", "q|qz[0-9]{0,9}Z?"),
)  # fmt: skip
BROKEN = {
    "json_schema": '{"type": 5',
    "gbnf": 'root ::= "a" (',
    "lark": 'start: "a" (',
    "regex": "a(",
}
"""Constraints that no engine can enforce."""


class ConstraintTests(ContractBase):
    """A constraint is enforced token by token, or refused before the first delta; it is never ignored."""

    def test_a_constraint_is_enforced_or_refused(self) -> None:
        """The text keeps to the constraint from its first token on, however short it is cut.

        If it fails: mask the tokens that the grammar does not permit before each draw, or raise InvalidRequestError or
        UnsupportedError before the first delta. At the end of the grammar only an end token is permitted.
        """

        async def test(model: LoadedModel) -> None:
            for case in CASES:
                if await self.is_refused(model, case.constraint):
                    continue
                samplings = [self.request().sampling]
                if self.obeys("temperature"):
                    samplings += [replace(PLAIN, temperature=1.5, seed=seed) for seed in range(2)]
                for sampling in samplings:
                    request = self.request(constraint=case.constraint, sampling=sampling, max_tokens=160)
                    check_case(case, await collect(model, request))
                cut = self.request(constraint=case.constraint, max_tokens=5)
                check_case(case, await collect(model, cut))

        self.run(test)

    def test_a_constraint_concerns_one_sequence(self) -> None:
        """A sequence without a constraint is not changed by one beside it or before it.

        If it fails: keep the state of the grammar with its sequence.
        """

        async def test(model: LoadedModel) -> None:
            free = (await collect(model, self.request())).text
            for case in CASES:
                if not await self.is_refused(model, case.constraint):
                    await collect(model, self.request(constraint=case.constraint, max_tokens=8))
                    assert (await collect(model, self.request())).text == free
                    first = await collect(model, self.request(constraint=case.constraint, max_tokens=100))
                    again = await collect(model, self.request(constraint=case.constraint, max_tokens=100))
                    assert first.text == again.text, "a constraint was used up by the first sequence with it"

        self.run(test)

    def test_a_constraint_that_makes_no_sense_is_refused(self) -> None:
        """A constraint with an error is refused before the first delta, and harms nothing after it.

        If it fails: compile the constraint before the sequence gets a slot, and raise InvalidRequestError.
        """

        async def test(model: LoadedModel) -> None:
            for kind, text in BROKEN.items():
                error = await refused(model, self.request(constraint=Constraint(kind, text)))
                assert isinstance(error, InvalidRequestError | UnsupportedError), f"{kind} {text!r} gave {error!r}"
            await collect(model, self.request(max_tokens=1))

        self.run(test)

    async def is_refused(self, model: LoadedModel, constraint: Constraint) -> bool:
        """Return whether the backend refuses a kind of constraint, which it may if its manifest does not declare it."""
        error = await refused(model, self.request(constraint=constraint, max_tokens=1))
        if error is None:
            return False
        assert isinstance(error, InvalidRequestError | UnsupportedError), f"a constraint was refused with {error!r}"
        self.check_may_lack(constraint.kind)
        return True


def check_case(case: Case, answer: Answer) -> None:
    """Check that a text keeps to its constraint: completely if it has ended, or else as a beginning."""
    whole = answer.finish.reason == "stop"
    pattern = case.pattern if whole else case.prefix
    assert re.fullmatch(pattern, answer.text), f"{answer.text!r} does not keep to the {case.constraint}"
    assert (
        whole or answer.finish.output_tokens < 100 or answer.text.isspace() or answer.text.endswith((" ", "\n", "\t"))
    ), f"the model did not end after {answer.text!r}, although the constraint was met"
