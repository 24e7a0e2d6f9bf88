"""The body of /v1/batches, and the lines of files of requests."""

from typing import Final

from puna_rest.gobody.kinds import Anything, Raw, String, Struct

BATCH: Final = Struct(
    "openai.BatchRequest",
    {"input_file_id": String(), "endpoint": String(), "completion_window": String(), "metadata": Anything()},
)
LINE: Final = Struct(
    "openai.BatchLine",
    {"custom_id": String(), "method": String(), "url": String(), "body": Raw()},
)
KEPT: Final = Struct("openai.KeptRequest", {"url": String(), "body": Raw()})
"""The part of a request that the translation of its answer needs."""
