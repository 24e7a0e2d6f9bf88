import pytest

from puna.backend import DeviceMemory, MemoryEstimate
from puna.backend.v1 import backend_pb2 as wire
from puna.host.convert_memory import estimate_from_wire, estimate_to_wire


def test_an_estimate_survives_the_wire():
    values = {name: 2 + number for number, name in enumerate(wire.DeviceMemory.DESCRIPTOR.fields_by_name)}
    devices = (DeviceMemory(), DeviceMemory(**values | {"device": "CUDA0"}))
    estimate = MemoryEstimate(context_length=5, parallel=6, max_context_length=7, devices=devices, process_bytes=8)
    read = wire.EstimateMemoryResponse.FromString(estimate_to_wire(estimate).SerializeToString())
    assert estimate_from_wire(read) == estimate


@pytest.mark.parametrize("wrong", [None, {"context_length": 5}])
def test_another_type_is_the_fault_of_the_plugin(wrong):
    with pytest.raises(TypeError, match="must return a MemoryEstimate"):
        estimate_to_wire(wrong)
