"""The family that converts each architecture."""

from collections.abc import Callable
from typing import Final

from puna.models.convert.bert import Bert
from puna.models.convert.failure import ConversionError, UnsupportedError
from puna.models.convert.family import Family
from puna.models.convert.folder import Folder
from puna.models.convert.gemma import Gemma, Gemma2, Gemma3
from puna.models.convert.llama import Llama, Mixtral
from puna.models.convert.qwen import Qwen2, Qwen3, Qwen3Moe
from puna.models.convert.settings import ModelSettings

FAMILIES: Final[dict[str, Callable[[ModelSettings, Folder], Family]]] = {
    "BertModel": Bert,
    "Gemma2ForCausalLM": Gemma2,
    "Gemma3ForCausalLM": Gemma3,
    "Gemma3ForConditionalGeneration": Gemma3,
    "GemmaForCausalLM": Gemma,
    "LlamaForCausalLM": Llama,
    "MistralForCausalLM": Llama,
    "MixtralForCausalLM": Mixtral,
    "Qwen2ForCausalLM": Qwen2,
    "Qwen3ForCausalLM": Qwen3,
    "Qwen3MoeForCausalLM": Qwen3Moe,
}
"""Families by the name of the architecture in config.json."""


def family(folder: Folder) -> Family:
    """Return the family of a folder's model. Raises UnsupportedError, in Ollama's words, and ConversionError."""
    if not (folder.path / "config.json").is_file():
        raise ConversionError("open config.json: no such file or directory")
    config = folder.json("config.json")
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise UnsupportedError("unknown architecture")
    name = architectures[0]
    if name not in FAMILIES:
        raise UnsupportedError(f'unsupported architecture "{name}"')
    # fp8, GPTQ and AWQ weights have the tensor names of plain weights, so without this check they would be converted to
    # noise.
    if "quantization_config" in config:
        raise UnsupportedError("unsupported quantization_config: convert the model from its unquantized weights")
    # Models with vision keep the settings of the language model in text_config; those keys win over the outer ones.
    return FAMILIES[name](ModelSettings({**config, **(config.get("text_config") or {})}), folder)
