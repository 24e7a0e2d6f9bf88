"""A request body, decoded as the routes decode it."""

import json

from puna.go.json_scanner import parse
from puna_rest.gobody.decoder import decode


def decoded(kind, body):
    """Return the document and the fields of a body, which is given as text or as a value."""
    document = parse((body if isinstance(body, str) else json.dumps(body)).encode())
    return document, decode(document, kind)
