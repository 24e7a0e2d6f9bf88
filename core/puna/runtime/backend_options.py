"""Options for a backend: those of requests, of models and of the operator are checked against its manifest and merged.

The functions block: a check may import a library, and a secret may be in a file.
"""

from collections.abc import Mapping

from puna.errors import InvalidRequestError, LoadFailedError
from puna.plugins import Manifest
from puna.secrets import SecretError
from puna.settings import Settings

PLACES = {
    "request": "is set in the server's configuration, not by requests",
    "model": "is set in the server's configuration, not by models",
}


def of_request(manifest: Manifest, given: Mapping[str, object]) -> dict[str, object]:
    """Return the checked options of a request.

    Raises InvalidRequestError if an option is unknown, out of range, or may be set by the operator or a model only.
    """
    return _checked(manifest, given, "request")


def of_model(manifest: Manifest, given: Mapping[str, object]) -> dict[str, object]:
    """Return the checked options that a model has stored, or that a creation would store in it.

    Raises InvalidRequestError if an option is unknown, out of range, or may be set by the operator only.
    """
    return _checked(manifest, given, "model")


def of_stored(manifest: Manifest, model: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return the checked options of a model that is being loaded. Raises LoadFailedError, which names the model."""
    try:
        return of_model(manifest, given)
    # The check is that of a creation, but a bad model is not the fault of the request that meets it first.
    except InvalidRequestError as error:
        raise LoadFailedError(f"the options in {model} are wrong: {error}") from error


def of_operator(
    manifest: Manifest,
    given: Mapping[str, object],
    *,
    kernels: bool | str | None = None,
) -> dict[str, object]:
    """Return the checked options of the configuration. Raises LoadFailedError if one is unknown or out of range.

    `kernels` is the setting PUNA_KERNELS. It wins over the options `kernels` and `exact_kernels` of a backend that
    declares them.
    """
    try:
        options = _checked(manifest, given, "operator")
    # The same check serves both, but a bad configuration is not the fault of the request that meets it first.
    except InvalidRequestError as error:
        raise LoadFailedError(f"the configuration's table [backends.{manifest.name}] is wrong: {error}") from error
    settings = {"kernels": bool(kernels)} if kernels is not None else {}
    settings |= {"exact_kernels": True} if kernels == "exact" else {}
    return options | {name: on for name, on in settings.items() if name in manifest.options}


def for_host(
    manifest: Manifest, settings: Settings, chosen: Mapping[str, object] | None = None, model: str = ""
) -> dict[str, object]:
    """Return what a host gets: the operator's options, and over them those that the model and the request chose.

    Names of secrets are replaced by the secrets. A model may come from a registry, so its options are checked here and
    not only when it is created. Raises LoadFailedError if an option is wrong, a required one is missing, or a secret
    cannot be read.
    """
    given = settings.backend_options.get(manifest.name, {})
    options = of_operator(manifest, given, kernels=settings.kernels) | of_stored(manifest, model, chosen or {})
    for name in manifest.required_options:
        if name not in options:
            raise LoadFailedError(
                f"backend {manifest.name!r} needs the option {name!r}, in the configuration's table "
                f"[backends.{manifest.name}] or in the model"
            )
    return {name: _with_secrets(manifest, name, value, settings) for name, value in options.items()}


def check_secrets(manifest: Manifest, options: Mapping[str, object], settings: Settings) -> None:
    """Check that the secrets of a model that is being created are names of the configuration, so that no key itself is
    stored by mistake.

    The options have been checked. Raises InvalidRequestError, which does not repeat the value.
    """
    for name, value in options.items():

        def resolve(entry: str, where: str = f"option {name!r} of backend {manifest.name!r}") -> str:
            if entry not in settings.secrets:
                raise InvalidRequestError(f"{where} must name an entry of the configuration's table [secrets]")
            return entry

        manifest.options[name].with_secrets(value, resolve)


def _with_secrets(manifest: Manifest, name: str, value: object, settings: Settings) -> object:
    where = f"option {name!r} of backend {manifest.name!r}"

    def resolve(entry: str) -> str:
        # The text is not repeated: an operator may have written the secret where its name belongs.
        if entry not in settings.secrets:
            raise LoadFailedError(f"{where} must name an entry of the configuration's table [secrets]")
        try:
            return settings.secrets[entry].read()
        except SecretError as error:
            raise LoadFailedError(f"{where} needs a secret: {error}") from error

    return manifest.options[name].with_secrets(value, resolve) if name in manifest.options else value


def _checked(manifest: Manifest, given: Mapping[str, object], scope: str) -> dict[str, object]:
    """Check options in the calling thread. The first one imports a library, which may take a second."""
    # First all names, since an option that may not be set must be refused whatever its value is.
    for key in given:
        if key not in manifest.options:
            # The name is untrusted and is shown in logs and errors, so it is cut.
            raise InvalidRequestError(f"backend {manifest.name!r} has no option {key[:100]!r}")
        if not manifest.options[key].allows(scope):
            raise InvalidRequestError(f"option {key!r} of backend {manifest.name!r} {PLACES[scope]}")
    checked = {}
    for key, value in given.items():
        try:
            checked[key] = manifest.options[key].check(value)
        except ValueError as error:
            raise InvalidRequestError(f"option {key!r} of backend {manifest.name!r} {error}") from error
    return checked
