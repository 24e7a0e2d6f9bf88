"""Aliases of models: the other names that the configuration file gives them.

An alias is a name of requests alone. Lists show the models themselves, and what changes the store takes names as they
are. A model of the store wins over an alias of the same name, so that a file cannot hide it. An alias wins over a model
that a backend offers, since an upstream may begin to offer any name.
"""

import asyncio
from dataclasses import replace

from puna.model_name import ModelName, Reference
from puna.model_settings import ConfiguredModels
from puna.models.store import ModelStore


async def resolved(reference: Reference, configured: ConfiguredModels, store: ModelStore) -> tuple[Reference, str]:
    """Return a reference with the model's own name in place of an alias, and the alias; empty if it is none.

    Errors show the alias, which does not tell which model it stands for.
    """
    target = configured.target(reference.base) if reference.name.is_valid else ""
    if not target or await asyncio.to_thread(store.has, reference.name):
        return reference, ""
    return replace(reference, name=ModelName.parse(target), base=target), reference.name.shortest
