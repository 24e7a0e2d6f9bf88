"""Finds renderers and parsers by the names that models' configurations use.

puna.capabilities has the names of the parsers too, with what each reads; a test compares both.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from puna.errors import UnknownRendererError
from puna.prompt.builtin.cohere import CohereRenderer
from puna.prompt.builtin.cohere_answer import CohereParser
from puna.prompt.builtin.deepseek import CogitoRenderer, DeepSeekRenderer
from puna.prompt.builtin.deepseek_answer import DeepSeekParser
from puna.prompt.builtin.format_texts import olmo3 as olmo3_text
from puna.prompt.builtin.functiongemma import FunctionGemmaRenderer
from puna.prompt.builtin.functiongemma_answer import FunctionGemmaParser
from puna.prompt.builtin.gemma4 import Gemma4Renderer
from puna.prompt.builtin.gemma4_answer import Gemma4Parser
from puna.prompt.builtin.glimmer import GlimmerRenderer
from puna.prompt.builtin.glimmer_answer import GlimmerParser
from puna.prompt.builtin.glm import GlmOcrRenderer, GlmRenderer
from puna.prompt.builtin.glm_answer import read_call as read_glm_call
from puna.prompt.builtin.glm_answer import read_unclosed_call
from puna.prompt.builtin.harmony import HarmonyParser
from puna.prompt.builtin.interface import Parser, Renderer
from puna.prompt.builtin.laguna import LagunaRenderer
from puna.prompt.builtin.laguna_answer import LagunaParser
from puna.prompt.builtin.lfm2 import Lfm2Renderer
from puna.prompt.builtin.lfm2_answer import Lfm2Parser
from puna.prompt.builtin.ministral import MinistralParser
from puna.prompt.builtin.nemotron import NemotronRenderer
from puna.prompt.builtin.notation.json_call import read_call as read_json_call
from puna.prompt.builtin.notation.json_call import read_named_call
from puna.prompt.builtin.olmo3 import Olmo3Renderer, Olmo3ThinkRenderer
from puna.prompt.builtin.olmo3_answer import Olmo3Parser, Olmo3ThinkParser
from puna.prompt.builtin.passthrough import PassthroughParser
from puna.prompt.builtin.qwen3_coder import Qwen3CoderRenderer
from puna.prompt.builtin.qwen3_coder_answer import read_call
from puna.prompt.builtin.qwen3_vl import Qwen3VLRenderer
from puna.prompt.builtin.qwen35 import Qwen35Renderer, Qwen38Renderer
from puna.prompt.builtin.tagged import ALL_TAGS, CALL_TAGS, ParserOptions, TaggedParser

_RENDERERS: Final[Mapping[str, Callable[[], Renderer]]] = MappingProxyType(
    {
        "qwen3-coder": Qwen3CoderRenderer,
        "qwen3-vl-instruct": lambda: Qwen3VLRenderer(thinks=False),
        "qwen3-vl-thinking": lambda: Qwen3VLRenderer(thinks=True),
        "qwen3.5": Qwen35Renderer,
        "qwen3.8": Qwen38Renderer,
        "ornith": lambda: Qwen35Renderer(keeps=True),
        "deepseek3.1": DeepSeekRenderer,
        "cogito": CogitoRenderer,
        "olmo3": lambda: Olmo3Renderer(system=olmo3_text.FUNCTION_CALLING_SYSTEM),
        # The sentence about functions follows the system message after a space, which the text of Olmo 3 contains.
        "olmo3.1": lambda: Olmo3Renderer(system=f"{olmo3_text.OLMO_SYSTEM} "),
        "olmo3-think": lambda: Olmo3ThinkRenderer(system=olmo3_text.OLMO_SYSTEM),
        "olmo3-32b-think": lambda: Olmo3ThinkRenderer(system=olmo3_text.SHORT_SYSTEM),
        "glm-4.7": GlmRenderer,
        "glm-ocr": GlmOcrRenderer,
        "gemma4-small": lambda: Gemma4Renderer(empty_thought=False),
        "gemma4-large": lambda: Gemma4Renderer(empty_thought=True),
        "functiongemma": FunctionGemmaRenderer,
        "nemotron-3-nano": lambda: NemotronRenderer(trims=True),
        "nemotron-3.5-nano": lambda: NemotronRenderer(trims=False),
        "laguna": lambda: LagunaRenderer(compact=False),
        "poolside-v1": lambda: LagunaRenderer(compact=True),
        "cohere": CohereRenderer,
        "glimmer": GlimmerRenderer,
        "lfm2": lambda: Lfm2Renderer(thinks=False),
        "lfm2-thinking": lambda: Lfm2Renderer(thinks=True),
    }
)


def _qwen35_parser() -> Parser:
    return TaggedParser(
        read_call,
        ParserOptions(thinks=True, opens=True, calls_while_thinking=True, closing_first=True, eats_after_calls=False),
    )


def _nemotron_parser() -> Parser:
    return TaggedParser(
        read_call,
        ParserOptions(
            thinks=True, opens=True, calls_while_thinking=True, eats_blank_pieces=True, eats_after_calls=False
        ),
    )


# The tags of arguments are special tokens of GLM, which would otherwise be invisible to the parser.
_GLM_TAGS: Final = (*ALL_TAGS, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")

_PARSERS: Final[Mapping[str, Callable[[], Parser]]] = MappingProxyType(
    {
        "harmony": HarmonyParser,
        "passthrough": PassthroughParser,
        "qwen3": lambda: TaggedParser(read_named_call, ParserOptions(eats_after_calls=False)),
        "qwen3-coder": lambda: TaggedParser(read_call, ParserOptions(eats_after_calls=False, preserved=CALL_TAGS)),
        "qwen3-thinking": lambda: TaggedParser(
            read_named_call,
            ParserOptions(
                thinks=True,
                begins_anew=True,
                opens=True,
                calls_while_thinking=True,
                eats_after_opening=False,
                eats_after_calls=False,
            ),
        ),
        "qwen3-vl-instruct": lambda: TaggedParser(read_json_call, ParserOptions(preserved=(*CALL_TAGS, "</think>"))),
        "qwen3-vl-thinking": lambda: TaggedParser(
            read_json_call,
            ParserOptions(
                thinks=True, always_thinks=True, calls_while_thinking=True, preserved=(*CALL_TAGS, "</think>")
            ),
        ),
        "qwen3.5": _qwen35_parser,
        "ornith": _qwen35_parser,
        "deepseek3": DeepSeekParser,
        "gemma4": Gemma4Parser,
        "gemma4-no-thinking": lambda: Gemma4Parser(thinks=False),
        "cogito": lambda: DeepSeekParser(fenced=True),
        "glm-4.7": lambda: TaggedParser(
            read_glm_call,
            ParserOptions(
                thinks=True,
                begins_anew=True,
                notices=True,
                eats_after_calls=False,
                closes=read_unclosed_call,
                preserved=_GLM_TAGS,
            ),
        ),
        "glm-ocr": lambda: TaggedParser(
            read_glm_call,
            ParserOptions(notices=True, eats_after_calls=False, closes=read_unclosed_call, preserved=_GLM_TAGS),
        ),
        "nemotron-3-nano": _nemotron_parser,
        "nemotron-3.5-nano": _nemotron_parser,
        "functiongemma": FunctionGemmaParser,
        "cohere": CohereParser,
        "glimmer": GlimmerParser,
        "laguna": lambda: LagunaParser(resumes=True),
        "poolside-v1": lambda: LagunaParser(resumes=False),
        "lfm2": lambda: Lfm2Parser(thinks=False),
        "lfm2-thinking": lambda: Lfm2Parser(thinks=True),
        "ministral": MinistralParser,
        "olmo3": Olmo3Parser,
        "olmo3-think": Olmo3ThinkParser,
    }
)


def renderer(name: str) -> Renderer:
    """Return the renderer of a name. Raises UnknownRendererError."""
    if name not in _RENDERERS:
        raise UnknownRendererError(name)
    return _RENDERERS[name]()


def parser(name: str) -> Parser | None:
    """Return a fresh parser for one answer; None for an unknown name, with which an answer is content."""
    # A new parser for each answer: parsers keep state.
    return _PARSERS[name]() if name in _PARSERS else None
