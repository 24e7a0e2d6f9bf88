from puna.cli.fit import sections
from puna_client.v1 import models_pb2


def shown(**fields):
    return [
        " ".join(line.split())
        for each in sections(models_pb2.EstimateModelResponse(**fields))
        for line in each.splitlines()
    ]


def test_an_estimate_is_told_part_by_part():
    main = models_pb2.DeviceMemory(
        weights_bytes=4 * 10**9, kv_cache_bytes=10**9, deferred_kv_cache_bytes=3 * 10**9, compute_bytes=5 * 10**7
    )
    gpu = models_pb2.DeviceMemory(device="CUDA0", weights_bytes=10**9, free_bytes=2 * 10**9)
    estimate = models_pb2.MemoryEstimate(
        context_length=4096, slots=4, total_bytes=6 * 10**9, devices=[main, gpu], process_bytes=8 * 10**7
    )
    lines = shown(
        estimate=estimate,
        free_bytes=9 * 10**9,
        fit=models_pb2.MODEL_FIT_FITS_AFTER_EVICTION,
        evicted_models=[models_pb2.LoadedModel(model=models_pb2.Model(name="old:latest"))],
        largest_context_length=8192,
    )
    for expected in (
        "context length 4096",
        "slots 4",
        "weights 4 GB",
        "KV cache 1 GB, and 3 GB more when all slots are full",
        "weights on CUDA0 1 GB",
        "process 80 MB",
        "total 6 GB",
        "fits yes, once other models are evicted",
        "free memory 9 GB",
        "free on CUDA0 2 GB",
        "evicted old:latest",
        "largest context 8192",
    ):
        assert expected in lines


def test_a_model_that_fits_with_no_context():
    estimate = models_pb2.MemoryEstimate(context_length=4096, slots=1)
    lines = shown(estimate=estimate, free_bytes=5, fit=models_pb2.MODEL_FIT_DOES_NOT_FIT)
    assert "fits no" in lines
    assert "largest context none" in lines


def test_a_backend_without_estimates():
    lines = shown(backend="other", file_bytes=7 * 10**9)
    assert "backend other gives no estimates of memory" in lines
    assert "files 7 GB" in lines
    assert "Fit" not in lines
