"""The errors of loading a model in a host process. They are kinds of LoadFailedError; see puna.errors."""

from puna.errors import LoadFailedError


class HostFailedError(LoadFailedError):
    """The host died, or gave no sign of life, while it loaded the model."""


class HostKilledError(HostFailedError):
    """The host was killed from outside while it started or loaded the model, most often for lack of memory.

    That says little of the model, so the load is worth another attempt. A host that ends by itself, or by a signal that
    its own code has caused, would most likely do the same again.
    """


class RoomTakenError(LoadFailedError):
    """Pinned models leave no room for the model. The text names none of them, since the caller may not know them."""


class ContractVersionError(LoadFailedError):
    """The host speaks another version of the contract between core and backends."""

    def __init__(self, backend: str, version: int, spoken: str) -> None:
        """`spoken` names the versions that this server speaks."""
        host = f"backend '{backend}' speaks version {version} of the plugin contract"
        fix = "install a release of the backend, or of Puna, that fits"
        super().__init__(f"unable to load model: {host}, and this server speaks {spoken}; {fix}", backend=backend)


class NodeError(LoadFailedError):
    """A node cannot run a host: it cannot be reached, does not accept this core, or lacks what the model needs.

    Another attempt costs little and says nothing of the model, so it is never held back.
    """

    reason = "NODE_UNAVAILABLE"


class NodeFullError(NodeError):
    """The node has no room for the files of the model."""


class NodeLostError(NodeError):
    """The node was lost while a host on it loaded the model."""
