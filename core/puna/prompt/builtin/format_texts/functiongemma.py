"""Format text: what the prompt format of FunctionGemma prescribes word for word.

The model was trained on prompts with this sentence.
"""

from typing import Final

TOOLS: Final = "You can do function calling with the following functions:"
"""The heading of the list of tools."""
