"""Checks options for a backend against its declarations, for requests and for the operator."""

import math
from collections.abc import Mapping

from puna.backend import Backend, Option
from puna.errors import InvalidRequestError, LoadFailedError

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def of_request(name: str, backend: Backend, given: Mapping[str, object]) -> dict[str, object]:
    """Return the checked options of a request.

    Raises InvalidRequestError if an option is unknown, out of range, or may be set by the operator only.
    """
    declared = {option.name: option for option in backend.options}
    for key in given:
        if key not in declared:
            # The name comes from a stranger and is shown in logs and errors, so it is cut.
            raise InvalidRequestError(f"backend {name!r} has no option {key[:100]!r}")
        if not declared[key].by_request:
            raise InvalidRequestError(
                f"option {key!r} of backend {name!r} is set in the server's configuration, not by requests"
            )
    return {key: _checked(name, declared[key], value) for key, value in given.items()}


def of_operator(
    name: str, backend: Backend, given: Mapping[str, object], *, kernels: bool | None = None
) -> dict[str, object]:
    """Return the checked options of the configuration. Raises LoadFailedError if one is unknown or out of range.

    `kernels` is the setting PUNA_KERNELS. It wins over the option `kernels` of a backend that declares one.
    """
    declared = {option.name: option for option in backend.options}
    try:
        if unknown := sorted(given.keys() - declared):
            raise InvalidRequestError(f"backend {name!r} has no option {unknown[0]!r}")
        options = {key: _checked(name, declared[key], value) for key, value in given.items()}
        return options if kernels is None or "kernels" not in declared else options | {"kernels": kernels}
    # The same check serves both, but a bad configuration is not the fault of the request that meets it first.
    except InvalidRequestError as error:
        raise LoadFailedError(f"the configuration's table [backends.{name}] is wrong: {error}") from error


def _checked(backend: str, option: Option, value: object) -> object:
    # JSON does not distinguish 1 from 1.0. A larger integer would lose digits as a float.
    if option.kind is float and type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    where = f"option {option.name!r} of backend {backend!r}"
    # Not isinstance, because True is an instance of int.
    if type(value) is not option.kind:
        raise InvalidRequestError(f"{where} must be {_KINDS[option.kind]}")
    if isinstance(value, int | float) and not option.minimum <= value <= option.maximum:
        raise InvalidRequestError(f"{where} must be between {_plain(option.minimum)} and {_plain(option.maximum)}")
    if isinstance(value, str) and option.choices and value not in option.choices:
        raise InvalidRequestError(f"{where} must be one of {', '.join(map(repr, option.choices))}")
    return value


def _plain(bound: float) -> str:
    return str(int(bound)) if math.isfinite(bound) and bound == int(bound) else str(bound)
