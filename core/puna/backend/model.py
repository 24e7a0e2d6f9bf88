"""How a model is loaded, and what is known of it afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintLimits:
    """Bounds on the work of constraints. A backend refuses a constraint that exceeds one and names the limit."""

    seconds: float = 5.0
    """CPU time to compile one constraint."""
    mask_seconds: float = 1.0
    """CPU time to compute which tokens may come next."""
    memory_bytes: int = 256 << 20
    """Memory of all compiled constraints of a model together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model and how to load it. All paths are absolute.

    A backend that cannot honour a value which only concerns speed or memory ignores it.
    """

    path: str
    """What to load: the model's only file or its GGUF file; the folder of its files if it has several of its own; empty
    for a model without files."""
    name: str = ""
    """The name under which the model is loaded. For logs; two names may share one loaded model."""
    format: str = "gguf"
    """The model's format, one of those that the manifest lists."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The paths of all the model's own files by their relative names, such as "tokenizer.json". Empty for GGUF."""
    folder: str = ""
    """The folder in which `files` lie under their names, made of links to the store. It exists from `load` to `aclose`,
    and nothing in it may be written. Empty if `files` is."""
    upstream: str = ""
    """The model's name at an upstream server; empty for a model of files."""
    adapter_paths: tuple[str, ...] = ()
    projector_paths: tuple[str, ...] = ()
    draft_path: str | None = None
    context_length: int = 4096
    """Tokens per sequence. The backend clamps it to the context length with which the model was trained."""
    parallel: int = 1
    """Number of sequences that may run at once; 0: the backend decides."""
    batch_size: int = 0
    """Tokens per prefill batch; 0: the backend decides."""
    gpu_layers: int = -1
    """Number of layers to put on GPUs; -1: the backend decides."""
    main_gpu: int | None = None
    use_mmap: bool | None = None
    threads: int = 0
    """CPU threads; 0: the backend decides."""
    draft_tokens: int = 0
    flash_attention: str = ""
    """"on", "off" or empty: the backend decides."""
    kv_cache_type: str = ""
    """Type of the KV cache, such as "q8_0"; empty: f16."""
    backend_options: Mapping[str, object] = field(default_factory=dict)
    """The backend's own options that were set, checked against its manifest.

    Options of the operator's configuration, of the model and of the request are merged, the later winning.
    """
    memory_bytes: int = 0
    """Free memory of the machine, in bytes; 0: unknown."""
    weights_loaded: bool = False
    """True if a model with the same weights is loaded, so that an estimate leaves them out. Set for estimates alone."""
    constraint_limits: ConstraintLimits = ConstraintLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The facts of a loaded model. They do not change while it is loaded."""

    context_length: int
    """Tokens per sequence, after clamping; 0: unknown. The core does not shorten prompts to an unknown length."""
    parallel: int = 1
    """Number of sequences that may run at once: the model's slots."""
    tokenizer: bool = True
    """False if `tokenize` and `detokenize` are not supported."""
    size_bytes: int = 0
    """Total memory: weights, KV cache and buffers."""
    vram_bytes: int = 0
    """The part of `size_bytes` that is on GPUs."""
    shared_bytes: int = 0
    """Weights that another model of the process has loaded. `size_bytes` leaves them out."""
    shared_vram_bytes: int = 0
    """The part of `shared_bytes` that is on GPUs."""
    kv_cache_tokens: int = 0
    """Tokens that fit into the KV cache, over all slots; 0: unknown, or there is none."""
    kv_cache_type: str = ""
    """Type of the KV cache, such as "f16"; empty: unknown, or there is none."""
    adds_bos: bool = False
    adds_eos: bool = False
    bos_id: int = -1
    eos_id: int = -1
    bos_text: str = ""
    eos_text: str = ""
    embedding_length: int = 0
    """Length of its embedding vectors; 0: the model does not embed; -1: unknown until it embeds."""
    embedding_tokens: int = 0
    """Tokens of the longest text that it embeds; 0: the context length."""
    generates: bool = True
    vision: bool = False
    audio: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """The memory that a model would take on one device, in bytes."""

    device: str = ""
    """Name of the device, such as "CUDA0"; empty: the machine's own memory."""
    weights_bytes: int = 0
    """Weights, adapters and projectors."""
    kv_cache_bytes: int = 0
    """KV cache and recurrent states, as far as they count in `ModelFacts.size_bytes`."""
    deferred_kv_cache_bytes: int = 0
    """The rest of the KV cache, which takes memory only once it is used."""
    compute_bytes: int = 0
    """Buffers for computing."""
    free_bytes: int = 0
    """Free memory of the device; 0: unknown. The core itself looks how much of the machine's memory is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """The memory that a model would take."""

    context_length: int
    """Tokens per sequence, after clamping."""
    parallel: int = 1
    """Number of sequences that may run at once."""
    max_context_length: int = 0
    """The longest context that the model allows, in tokens; 0: unknown."""
    devices: tuple[DeviceMemory, ...] = ()
    process_bytes: int = 0
    """Main memory that the host's process takes beside these; 0: unknown."""


@dataclass(frozen=True, slots=True)
class KvCacheUsage:
    """How much of a model's KV cache is in use, in tokens over all slots."""

    active_tokens: int
    """Tokens of running sequences."""
    cached_tokens: int
    """Tokens that earlier sequences left for reuse, and that make room when it is needed."""
