"""Format text: what the prompt format of Qwen3.8 prescribes word for word.

The models were trained on prompts with these sentences.
"""

from types import MappingProxyType
from typing import Final

EFFORTS: Final = MappingProxyType(
    {
        "low": "Reasoning effort is set to low. Keep your thinking brief and focused, moving directly to the "
        "conclusion without unnecessary elaboration.",
        "high": "Reasoning effort is set to xhigh. Please think carefully through the task, validate key assumptions, "
        "consider plausible alternatives, and prioritize correctness, consistency, and clarity in the final answer.",
    }
)
"""The sentence that tells how hard to think, by the level that a client asks for."""
