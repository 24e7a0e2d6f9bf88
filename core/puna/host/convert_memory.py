"""Converts estimates and uses of memory between the contract's dataclasses and `puna.backend.v1`."""

from puna import backend as contract
from puna.backend.v1 import backend_pb2 as wire

# Fields of the wire and of the dataclasses have the same names, so a new field needs no line here.
_OF_DEVICE = tuple(wire.DeviceMemory.DESCRIPTOR.fields_by_name)
_OF_ESTIMATE = tuple(name for name in wire.EstimateMemoryResponse.DESCRIPTOR.fields_by_name if name != "devices")


def estimate_to_wire(estimate: contract.MemoryEstimate) -> wire.EstimateMemoryResponse:
    """Write an estimate. Raises TypeError or AttributeError for one that the contract does not allow."""
    if not isinstance(estimate, contract.MemoryEstimate):
        raise TypeError(f"estimate_memory must return a MemoryEstimate, and it returned a {type(estimate).__name__}")
    devices = [wire.DeviceMemory(**{name: getattr(each, name) for name in _OF_DEVICE}) for each in estimate.devices]
    return wire.EstimateMemoryResponse(**{name: getattr(estimate, name) for name in _OF_ESTIMATE}, devices=devices)


def estimate_from_wire(answer: wire.EstimateMemoryResponse) -> contract.MemoryEstimate:
    """Read an estimate."""
    devices = (contract.DeviceMemory(**{name: getattr(each, name) for name in _OF_DEVICE}) for each in answer.devices)
    return contract.MemoryEstimate(**{name: getattr(answer, name) for name in _OF_ESTIMATE}, devices=tuple(devices))
