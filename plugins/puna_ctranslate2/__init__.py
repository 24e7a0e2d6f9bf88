"""The CTranslate2 backend: folders of model.bin, config.json and tokenizer.json. See README.md."""

from puna_ctranslate2.backend import CTranslate2Backend

__all__ = ["CTranslate2Backend"]
