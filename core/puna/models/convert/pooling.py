"""The pooling of sentence-transformers models, from the steps that modules.json lists."""

from typing import Final

from puna.models.convert.folder import Folder

MEAN: Final = 1
_MODES: Final = {"pooling_mode_mean_tokens": MEAN, "pooling_mode_cls_token": 2, "pooling_mode_lasttoken": 3}
"""GGUF's numbers of pooling types, by the keys in the step's config.json."""


def pooling(folder: Folder) -> int | None:
    """Return GGUF's number of the pooling type; None if there is no such step. Raises ConversionError."""
    for kind, path in _steps(folder):
        if kind.endswith("Pooling"):
            modes = folder.json(f"{path}/config.json")
            # A step in which none of these flags is true pools by the mean, the default of sentence-transformers.
            return next((number for mode, number in _MODES.items() if modes.get(mode) is True), MEAN)
    return None


def normalizes(folder: Folder) -> bool:
    """True if embeddings are normalized to length one."""
    return any(kind.endswith("Normalize") for kind, _ in _steps(folder))


def _steps(folder: Folder) -> list[tuple[str, str]]:
    """Return the steps' types and folders."""
    return [(str(each.get("type")), str(each.get("path"))) for each in folder.objects("modules.json")]
