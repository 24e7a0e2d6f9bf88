"""The program: `python -m puna.models.convert`, with a job as JSON on standard input.

A job is {"files": {name: path}, "target": path}, for an adapter also {"base": {architecture, blocks, heads, kv_heads}}.
Lines `progress DONE TOTAL` (bytes) go to standard output. What is wrong goes to standard error, and then the status is
2 if it is wrong with the files and 3 if nobody here knows their kind.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from puna.models.convert import families, lora, output, plan, vocabulary
from puna.models.convert.failure import ConversionError, UnsupportedError
from puna.models.convert.family import Pairs
from puna.models.convert.folder import Folder
from puna.models.convert.plan import Planned

WRONG: Final = 2
UNSUPPORTED: Final = 3


def main() -> int:
    """Run the program and return its exit status."""
    job = json.load(sys.stdin)
    try:
        with tempfile.TemporaryDirectory(prefix="puna-convert-") as name:
            folder = _linked(Path(name), job["files"])
            architecture, pairs, tensors = _adapter(folder, job["base"]) if job.get("base") else _model(folder)
            for done, total in output.write(Path(job["target"]), architecture, pairs, tensors):
                sys.stdout.write(f"progress {done} {total}\n")
                sys.stdout.flush()
    except (ConversionError, UnsupportedError) as error:
        sys.stderr.write(f"{error}\n")
        return WRONG if isinstance(error, ConversionError) else UNSUPPORTED
    return 0


def _linked(path: Path, files: dict[str, str]) -> Folder:
    """Give blobs their names again, as links in a folder."""
    for name, target in files.items():
        link = path / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    return Folder(path)


def _model(folder: Folder) -> tuple[str, Pairs, list[Planned]]:
    family = families.family(folder)
    tensors = plan.plan(folder, family)
    rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    pairs = {f"{family.architecture}.{key}": value for key, value in family.metadata().items()}
    return family.architecture, pairs | vocabulary.metadata(folder, rows), tensors


def _adapter(folder: Folder, told: dict[str, Any]) -> tuple[str, Pairs, list[Planned]]:
    base = lora.Base(**told)
    return base.architecture, lora.metadata(folder, base), lora.plan(folder, base)


if __name__ == "__main__":
    sys.exit(main())
