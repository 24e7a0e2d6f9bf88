"""The capabilities of models by their names in Ollama's API, and the capabilities that each builtin parser adds."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

COMPLETION: Final = "completion"
TOOLS: Final = "tools"
INSERT: Final = "insert"
VISION: Final = "vision"
EMBEDDING: Final = "embedding"
THINKING: Final = "thinking"
AUDIO: Final = "audio"

PARSERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "cogito": (TOOLS, THINKING),
        "cohere": (TOOLS, THINKING),
        "deepseek3": (TOOLS, THINKING),
        "functiongemma": (TOOLS,),
        "gemma4": (TOOLS, THINKING),
        "gemma4-no-thinking": (TOOLS,),
        "glimmer": (TOOLS, THINKING),
        "glm-4.7": (TOOLS, THINKING),
        "glm-ocr": (TOOLS,),
        "harmony": (TOOLS, THINKING),
        "laguna": (TOOLS, THINKING),
        "lfm2": (TOOLS,),
        "lfm2-thinking": (TOOLS, THINKING),
        "ministral": (TOOLS,),
        "nemotron-3-nano": (TOOLS, THINKING),
        "nemotron-3.5-nano": (TOOLS, THINKING),
        "olmo3": (TOOLS,),
        "olmo3-think": (THINKING,),
        "ornith": (TOOLS, THINKING),
        "poolside-v1": (TOOLS, THINKING),
        "qwen3": (TOOLS,),
        "qwen3-coder": (TOOLS,),
        "qwen3-thinking": (TOOLS, THINKING),
        "qwen3-vl-instruct": (TOOLS,),
        "qwen3-vl-thinking": (TOOLS, THINKING),
        "qwen3.5": (TOOLS, THINKING),
    }
)
"""The capabilities of each builtin parser. puna.prompt.builtin.registry makes a parser for each of these names;
any other name means that an answer is content as a whole.

The table stands below the models and the prompts because both need it: a list of models tells capabilities without
making a parser.
"""
