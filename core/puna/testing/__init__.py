"""The backend contract as tests, for plugin authors. Subclass BackendContract, say what to load, and run pytest:

    class TestParrot(BackendContract):
        backend_class = ParrotBackend

        def spec(self) -> ModelSpec:
            return ModelSpec(path="/models/polly.txt", context_length=256)

Nothing but pytest is needed. The model should be small, and answer `prompt` with two dozen tokens or more. What the
model does not support, such as embedding, must be refused as the contract says; then the refusal is tested. The text of
each test says what to do if it fails.
"""

from puna.testing.answers import Answer, collect, refusal, refused
from puna.testing.chat import ChatAnswer, ChatContract, collect_chat
from puna.testing.constraints import ConstraintTests
from puna.testing.context import ContextTests
from puna.testing.generating import GeneratingTests
from puna.testing.harness import GREEDY, ContractBase
from puna.testing.loading import LoadingTests
from puna.testing.logprobs import LogprobTests
from puna.testing.order import OrderTests
from puna.testing.penalties import PenaltyTests
from puna.testing.prompt_logprobs import PromptLogprobTests
from puna.testing.runner import Outcome, run_contract
from puna.testing.sequences import SequenceTests
from puna.testing.stopping import StoppingTests
from puna.testing.thinking import ThinkingTests
from puna.testing.tokens import TokenTests
from puna.testing.vectors import VectorTests

__all__ = [
    "GREEDY",
    "Answer",
    "BackendContract",
    "ChatAnswer",
    "ChatContract",
    "ContractBase",
    "Outcome",
    "collect",
    "collect_chat",
    "refusal",
    "refused",
    "run_contract",
]


class BackendContract(
    LoadingTests,
    GeneratingTests,
    SequenceTests,
    OrderTests,
    PenaltyTests,
    LogprobTests,
    PromptLogprobTests,
    ConstraintTests,
    ContextTests,
    StoppingTests,
    ThinkingTests,
    TokenTests,
    VectorTests,
):
    """Tests that every backend which takes a prompt passes. Override `backend_class` and `spec`, and what you need."""
