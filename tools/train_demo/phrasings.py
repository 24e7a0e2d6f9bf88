"""The lists of ``phrasings.toml``, by name."""

import tomllib
from pathlib import Path

PHRASES: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("phrasings.toml").read_text())
