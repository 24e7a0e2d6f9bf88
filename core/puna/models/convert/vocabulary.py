"""Reading the tokenizer of a folder, the tokens that begin and end texts, and the chat templates."""

from typing import Final

from gguf import SpecialVocab

from puna.models.convert import bpe, sentencepiece, wordpiece
from puna.models.convert.failure import ConversionError, UnsupportedError
from puna.models.convert.family import Pairs
from puna.models.convert.folder import Folder
from puna.models.convert.tokens import Vocabulary

_FURTHER_ENDS: Final = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def metadata(folder: Folder, rows: int) -> Pairs:
    """Return all tokenizer and chat keys for a model of `rows` embeddings. Raises ConversionError."""
    vocabulary = read(folder)
    try:
        special = SpecialVocab(folder.path, load_merges=vocabulary.has_merges, n_vocab=rows)
    # gguf's reader of tokenizer files trusts their structure and fails in any of these ways.
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ConversionError(f"the tokenizer's files do not fit together: {error}") from error
    found = vocabulary.metadata(rows)
    if special.merges:
        found["tokenizer.ggml.merges"] = list(special.merges)
    # GGUF's key is spelled "seperator".
    names = {"unk": "unknown", "sep": "seperator", "pad": "padding"}
    for kind, place in special.special_token_ids.items():
        found[f"tokenizer.ggml.{names.get(kind, kind)}_token_id"] = place
    for kind, is_added in special.add_special_token.items():
        found[f"tokenizer.ggml.add_{kind}_token"] = is_added
    # These keys win over the special tokens above, which know one end token only.
    found |= _ends(folder, rows, special.special_token_ids.get("eos"))
    return found | _templates(special.chat_template)


def read(folder: Folder) -> Vocabulary:
    """Return the tokens of the folder's tokenizer. Raises UnsupportedError and ConversionError."""
    tokenizer = folder.json("tokenizer.json")
    model = tokenizer.get("model") or {}
    # A tokenizer.model may lie beside a byte-level tokenizer.json, as in some Llama 3 folders, where it has another
    # format. So tokenizer.json decides first.
    is_sentencepiece = model.get("type") == "BPE" and sentencepiece.is_like(tokenizer)
    if (folder.path / "tokenizer.model").is_file() and (
        not tokenizer or is_sentencepiece or model.get("type") == "Unigram"
    ):
        return sentencepiece.of_model(folder, tokenizer)
    if not tokenizer:
        raise UnsupportedError("unknown tokenizer format")
    match model.get("type"):
        case "BPE" if is_sentencepiece:
            return sentencepiece.of_json(folder, tokenizer)
        case "BPE":
            return bpe.read(folder, tokenizer)
        case "WordPiece":
            return wordpiece.read(folder, tokenizer)
        case kind:
            raise UnsupportedError(f'unsupported tokenizer "{kind}"')


def _ends(folder: Folder, rows: int, first: int | None) -> Pairs:
    """Return the keys of further tokens that end an answer. llama.cpp supports two besides the first."""
    # generation_config.json is what a model's own library generates with; config.json may list fewer end tokens.
    end_ids = folder.json("generation_config.json").get("eos_token_id")
    if not isinstance(end_ids, list):
        end_ids = folder.json("config.json").get("eos_token_id")
    ends = [each for each in end_ids if type(each) is int and 0 <= each < rows] if isinstance(end_ids, list) else []
    if not ends:
        return {}
    # Ollama reads this list; llama.cpp reads the single keys below.
    found: Pairs = {"tokenizer.ggml.eos_token_ids": ends}
    if first is None:
        first = found["tokenizer.ggml.eos_token_id"] = ends[0]
    return found | dict(zip(_FURTHER_ENDS, [each for each in ends if each != first], strict=False))


def _templates(templates: object) -> Pairs:
    """Return the keys of the chat templates: one, or a default one and others by name."""
    if isinstance(templates, str):
        return {"tokenizer.chat_template": templates}
    found: Pairs = {}
    names: list[str] = []
    for each in templates if isinstance(templates, list) else []:
        name, template = str(each.get("name")), str(each.get("template"))
        if name == "default":
            found["tokenizer.chat_template"] = template
        else:
            names.append(name)
            found[f"tokenizer.chat_template.{name}"] = template
    return found | ({"tokenizer.chat_templates": names} if names else {})
