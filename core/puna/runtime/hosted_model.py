"""The type of a loaded model that runs in a host process."""

import sys
from abc import abstractmethod

from puna.backend import LoadedModel


class HostedModel(LoadedModel):
    """A loaded model and the process that it runs in."""

    max_unread: int = sys.maxsize
    """Events of a sequence that may wait to be taken. A sequence with more of them ends with ClientStalledError."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """Process id of the host; 0 if it has none."""
