"""The server's settings, and their reader: the environment first, then the configuration file, then the defaults.

Ollama's variables have Ollama's meaning. Puna's own begin with PUNA_. `puna.variables` describes every variable.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from puna.auth.permissions import EXPOSURES
from puna.configuration import FILE_KEYS, Adopted, Configuration, Overlay, load
from puna.go.duration import parse_seconds
from puna.limits import DEFAULT_LIMITS, Limits, read_limits
from puna.model_settings import ConfiguredModels, check_bounds
from puna.replica_count import ONE_REPLICA, ReplicaCount
from puna.secrets import Secrets, read_secrets
from puna.variables import VARIABLES

log = logging.getLogger(__name__)

REST_VERSION = "0.33.0"
"""The release of Ollama whose REST API is matched."""
DEFAULT_PORT = 11434
DEFAULT_REMOTES = ("ollama.com",)
# The texts that Go's ParseBool reads as false.
FALSE = {"0", "f", "F", "FALSE", "false", "False"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a server or a client."""

    host: str = "127.0.0.1"
    """Address of the REST bridge."""
    port: int = DEFAULT_PORT
    grpc_host: str = f"127.0.0.1:{DEFAULT_PORT + 1}"
    """Address of the gRPC core."""
    metrics_host: str = ""
    """Address on which Prometheus asks for metrics; empty: none."""
    metrics_prefix: str = "puna"
    rest_metrics: bool = False
    """Whether the REST face serves metrics too."""
    traces: bool = False
    """True: the traces of requests are exported."""
    traces_content: bool = False
    """True: these traces have the texts of prompts and answers."""
    records: bool = False
    """True: the server keeps records of its last requests."""
    records_content: str = "all"
    """Which texts these records have: "all", "prompts", "answers" or "none"."""
    records_redaction: Path | None = None
    """A file of patterns. Passages that match one are removed from records. None: nothing is removed."""
    dashboard: bool = True
    """Whether the REST face serves the dashboard. Its first question about metrics has them collected."""
    keepalive_time: float = 60.0
    """Seconds of silence after which the core pings a gRPC client; infinity: never."""
    keepalive_timeout: float = 20.0
    """Seconds within which the client must answer the ping."""
    connection_age: float = math.inf
    """Seconds after which the core asks a gRPC client to open another connection; infinity: never."""
    connection_age_grace: float = math.inf
    """Seconds that the calls on such a connection may go on; infinity: until they end."""
    drain_delay: float = 0.0
    """Seconds after the first signal in which requests are still accepted, so that balancers notice the end."""
    models: Path = Path()
    """Root of the store: the folder with `blobs` and `manifests`."""
    origins: tuple[str, ...] = ()
    """Origins of browser pages that may call the API, beside local ones."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names by which requests may call this server, beside addresses and its own names; see puna_rest.hosts."""
    keep_alive: float = 300.0
    """Seconds that a model stays loaded after its last request; infinity: for good."""
    load_timeout: float = 300.0
    """Seconds without progress after which loading is given up; infinity: never."""
    context_length: int = 0
    """Default context length in tokens; 0: 4096."""
    num_parallel: int = 0
    """Sequences of one model that run at once; 0: the backend decides."""
    max_loaded_models: int = 0
    """Models that are loaded at once; 0: three for each machine."""
    max_queue: int = 512
    """Requests that may wait for anything: a load, a slot, or the calls of others."""
    no_prune: bool = False
    flash_attention: str = ""
    kv_cache_type: str = ""
    go_template: bool | None = None
    """Whether a model's Go template is preferred to its Jinja template; None: the more capable one is used."""
    remotes: tuple[str, ...] = DEFAULT_REMOTES
    history: bool = True
    """Whether `puna run` keeps a history of what was typed."""
    log_format: str = "text"
    """"text" or "json"."""
    debug: int = 0
    """0: log at level INFO; 1 and above: DEBUG."""
    default_backend: str = ""
    """Backend of models that name none; empty: by format and preference."""
    kernels: bool | str | None = None
    """True: backends use CPU kernels of their own instead of their library's; "exact": those with the library's bits.
    The options `kernels` and `exact_kernels` of backends. None: the configuration file or the backend decides."""
    backend_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options that backends declare, by the backend's name: the tables [backends.NAME] of the file."""
    model_settings: ConfiguredModels = field(default_factory=ConfiguredModels)
    """The settings of single models: the tables [model.NAME] of the file."""
    secrets: Secrets = field(default_factory=Secrets)
    """The table [secrets] of the file. Options of backends that are secret hold the name of an entry."""
    plugins: tuple[str, ...] = ()
    """Names of the backends that may be used; empty: all."""
    plugins_folder: Path | None = None
    """The folder of backends that no Python distribution announces; None: there is none."""
    registry_host: str = ""
    """The registry of the next three settings, [scheme://]host[:port]; https by default. They are sent nowhere else."""
    registry_username: str = ""
    # Without repr, so that a log line or an error that shows the settings does not show the secret.
    registry_password: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    docker_auth: str = field(default="", repr=False)
    """Docker's configuration as JSON, from DOCKER_AUTH_CONFIG."""
    docker_config: Path | None = None
    """Docker's configuration file, for the credentials in it."""
    allowed_registries: tuple[str, ...] = ()
    """Registries that models may come from and go to: [scheme://]host[:port] or *.domain. Empty: all."""
    registry_peers: tuple[str, ...] = ()
    """Hosts that registries may refer to although their addresses are not public, in the same form."""
    registry_realms: tuple[str, ...] = ()
    """Token servers on other hosts that get a registry's credentials: registry=host."""
    replicas: ReplicaCount = ONE_REPLICA
    """How many hosts load a model."""
    routing: str = "prefix"
    """The policy that chooses the replica for a request; see puna.runtime.routing."""
    launcher: str = "local"
    """Where hosts run: "local", on this machine, "static", on the nodes of `hosts`, or "ray", on a Ray cluster."""
    hosts: tuple[str, ...] = ()
    """Addresses of nodes, host:port."""
    cluster_tls: Path | None = None
    """Folder of the certificate by which cores and nodes know each other; None: the default one."""
    node_cache: Path | None = None
    """Folder in which a node keeps files of models; None: the default one."""
    batches: Path | None = None
    """The folder of batches and files of clients; None: the server keeps none."""
    keys: Path = Path()
    """The file of API keys. If there is one, callers need a key."""
    api_key: str = field(default="", repr=False)
    """The key that commands send to a server."""
    expose: tuple[str, ...] = ()
    """Groups of methods that the server offers; empty: all. See puna.auth.permissions."""
    allow_anonymous: bool = False
    """Whether a server that others can reach may serve callers without a key."""
    tls_certificate: Path | None = None
    """The server's certificate chain in PEM; None: no TLS. Both faces use it."""
    tls_key: Path | None = None
    """The certificate's private key in PEM."""
    tls_client_ca: Path | None = None
    """Certificates in PEM that sign those of clients. If set, a client without such a certificate is refused."""
    tls_ca: Path | None = None
    """Certificates in PEM by which commands and a bridge check the core's certificate; None: the system's."""
    limits: Limits = DEFAULT_LIMITS
    """The bounds on what requests, connections, models and peers may use."""

    def adopt(self, other: "Settings") -> Adopted:
        """Take over the values of `other` that a running server may change.

        Everything that reads these settings sees the new values at its next request.
        """
        changed, pending = [], []
        for each in fields(self):
            value = getattr(other, each.name)
            if value == getattr(self, each.name):
                continue
            if each.name in RELOADABLE:
                # The class is frozen for everyone else.
                object.__setattr__(self, each.name, value)
                changed.append(FILE_KEYS.get(each.name, each.name))
            else:
                pending.append(FILE_KEYS.get(each.name, each.name))
        return Adopted(changed, pending)


RELOADABLE = frozenset(
    (
        *("keep_alive", "load_timeout", "context_length", "num_parallel", "max_loaded_models", "max_queue", "remotes"),
        *("flash_attention", "kv_cache_type", "default_backend", "kernels", "backend_options", "secrets", "expose"),
        *("model_settings", "replicas", "routing"),
    )
)
"""The settings that a running server takes over when its configuration is read again."""


def from_environment(environ: Mapping[str, str], config: Path | None = None) -> Settings:
    """Read the settings.

    A bad value in the environment falls back to its default with a warning. A bad configuration file raises ValueError.
    """
    found = _file(config)
    environ = Overlay(environ, found.variables)
    host, port = _address(_text(environ, "OLLAMA_HOST"))
    limits = read_limits(environ, found.limits)
    check_bounds(found.models, limits)
    return Settings(
        host=host,
        port=port,
        grpc_host=_text(environ, "PUNA_GRPC_HOST") or _beside(port),
        metrics_host=_text(environ, "PUNA_METRICS_HOST"),
        metrics_prefix=_choice(environ, "PUNA_METRICS_PREFIX"),
        rest_metrics=_truth(_text(environ, "PUNA_REST_METRICS")),
        traces=_truth(_text(environ, "PUNA_TRACES")),
        traces_content=_truth(_text(environ, "PUNA_TRACES_CONTENT")),
        records=_truth(_text(environ, "PUNA_RECORDS")),
        records_content=_known(environ, "PUNA_RECORDS_CONTENT"),
        records_redaction=_path(environ, "PUNA_RECORDS_REDACTION"),
        dashboard=_truth(_text(environ, "PUNA_DASHBOARD") or "1"),
        keepalive_time=_seconds(environ, "PUNA_KEEPALIVE_TIME", 60.0, forever_at_zero=True),
        keepalive_timeout=_seconds(environ, "PUNA_KEEPALIVE_TIMEOUT", 20.0, forever_at_zero=True),
        connection_age=_seconds(environ, "PUNA_CONNECTION_AGE", math.inf, forever_at_zero=True),
        connection_age_grace=_seconds(environ, "PUNA_CONNECTION_AGE_GRACE", math.inf, forever_at_zero=True),
        drain_delay=_seconds(environ, "PUNA_DRAIN_DELAY", 0.0, forever_at_zero=False),
        models=Path(_text(environ, "OLLAMA_MODELS") or Path.home() / ".ollama" / "models"),
        origins=_list(environ, "OLLAMA_ORIGINS"),
        allowed_hosts=_list(environ, "PUNA_ALLOWED_HOSTS"),
        keep_alive=_seconds(environ, "OLLAMA_KEEP_ALIVE", 300.0, forever_at_zero=False),
        load_timeout=_seconds(environ, "OLLAMA_LOAD_TIMEOUT", 300.0, forever_at_zero=True),
        context_length=_count(environ, "OLLAMA_CONTEXT_LENGTH", 0),
        num_parallel=_count(environ, "OLLAMA_NUM_PARALLEL", 0),
        max_loaded_models=_count(environ, "OLLAMA_MAX_LOADED_MODELS", 0),
        max_queue=_count(environ, "OLLAMA_MAX_QUEUE", 512),
        no_prune=_truth(_text(environ, "OLLAMA_NOPRUNE")),
        flash_attention={None: "", False: "off", True: "on"}[_truth_if_set(environ, "OLLAMA_FLASH_ATTENTION")],
        kv_cache_type=_text(environ, "OLLAMA_KV_CACHE_TYPE").lower(),
        go_template=_truth_if_set(environ, "OLLAMA_GO_TEMPLATE"),
        remotes=_list(environ, "OLLAMA_REMOTES") or DEFAULT_REMOTES,
        history=not environ.get("OLLAMA_NOHISTORY"),
        log_format=_choice(environ, "PUNA_LOG_FORMAT"),
        debug=_level(_text(environ, "OLLAMA_DEBUG")),
        default_backend=_text(environ, "PUNA_BACKEND"),
        kernels="exact" if environ.get("PUNA_KERNELS") == "exact" else _truth_if_set(environ, "PUNA_KERNELS"),
        backend_options=found.backends,
        model_settings=found.models,
        secrets=read_secrets(found.secrets),
        plugins=_list(environ, "PUNA_PLUGINS"),
        plugins_folder=_plugins_folder(_text(environ, "PUNA_PLUGINS_FOLDER")),
        registry_host=_text(environ, "PUNA_REGISTRY_HOST"),
        # Not `_text`: a password may begin or end with a blank or a quote.
        registry_username=environ.get("PUNA_REGISTRY_USERNAME", ""),
        registry_password=environ.get("PUNA_REGISTRY_PASSWORD", ""),
        registry_token=environ.get("PUNA_REGISTRY_TOKEN", ""),
        docker_auth=environ.get("DOCKER_AUTH_CONFIG", ""),
        docker_config=Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json",
        allowed_registries=_list(environ, "PUNA_ALLOWED_REGISTRIES"),
        registry_peers=_list(environ, "PUNA_REGISTRY_PEERS"),
        registry_realms=_list(environ, "PUNA_REGISTRY_REALMS"),
        replicas=_replicas(_text(environ, "PUNA_REPLICAS"), limits),
        routing=_choice(environ, "PUNA_ROUTING"),
        launcher=_choice(environ, "PUNA_LAUNCHER"),
        hosts=_list(environ, "PUNA_HOSTS"),
        cluster_tls=_path(environ, "PUNA_CLUSTER_TLS"),
        node_cache=_path(environ, "PUNA_NODE_CACHE"),
        batches=_path(environ, "PUNA_BATCHES") or platformdirs.user_data_path("puna", appauthor=False) / "batches",
        keys=_path(environ, "PUNA_KEYS") or platformdirs.user_config_path("puna", appauthor=False) / "keys.json",
        api_key=environ.get("PUNA_API_KEY", "").strip(),
        expose=_exposed(_list(environ, "PUNA_EXPOSE")),
        allow_anonymous=_truth(_text(environ, "PUNA_ALLOW_ANONYMOUS")),
        tls_certificate=_path(environ, "PUNA_TLS_CERTIFICATE"),
        tls_key=_path(environ, "PUNA_TLS_KEY"),
        tls_client_ca=_path(environ, "PUNA_TLS_CLIENT_CA"),
        tls_ca=_path(environ, "PUNA_TLS_CA"),
        limits=limits,
    )


def _beside(port: int) -> str:
    """Return the default address of the core: the port after the bridge's, so that OLLAMA_HOST moves both."""
    # Port 0, and a port without a successor, let the system choose.
    return f"127.0.0.1:{port + 1 if 0 < port < 65535 else 0}"


def config_path() -> Path:
    """Return the place of the configuration file if no option names another."""
    return platformdirs.user_config_path("puna", appauthor=False) / "config.toml"


def _file(config: Path | None) -> Configuration:
    path = config or config_path()
    # A file that is named must exist; the default one need not.
    if config is None and not path.exists():
        return Configuration()
    return load(path)


def _plugins_folder(text: str) -> Path:
    return Path(text).expanduser() if text else platformdirs.user_data_path("puna", appauthor=False) / "plugins"


def _text(environ: Mapping[str, str], name: str) -> str:
    # Quotes around a value are stripped, as in Ollama.
    return environ.get(name, "").strip().strip("\"'").strip()


def _list(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in _text(environ, name).split(",") if each.strip())


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    text = _text(environ, name)
    return Path(text).expanduser() if text else None


def _exposed(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check the setting `expose`. Raises ValueError: an unknown name would close what the operator means to open."""
    if unknown := [each for each in names if each not in EXPOSURES]:
        raise ValueError(f"expose has no {unknown[0]!r}; its names are {', '.join(EXPOSURES)}")
    return names


def _choice(environ: Mapping[str, str], variable: str) -> str:
    """Read one of the words that a variable may have; the first is the default."""
    choices = next(each.choices for each in VARIABLES if each.name == variable)
    found = _text(environ, variable) or choices[0]
    if found in choices:
        return found
    log.warning("%s is %r; it may be %s. %s is used", variable, found, " or ".join(choices), choices[0])
    return choices[0]


def _known(environ: Mapping[str, str], variable: str) -> str:
    """Read one of the words that a variable may have. Raises ValueError for others: a default would keep too much."""
    choices = next(each.choices for each in VARIABLES if each.name == variable)
    found = _text(environ, variable) or choices[0]
    if found not in choices:
        raise ValueError(f"{variable} is {found!r}; it may be {', '.join(choices)}")
    return found


def _replicas(text: str, limits: Limits) -> ReplicaCount:
    """Read PUNA_REPLICAS. Raises ValueError: with a default, an operator would wait for replicas that never come."""
    try:
        count = ReplicaCount.parse(text or "1")
        count.check(limits.max_replicas)
    except ValueError as error:
        raise ValueError(f"PUNA_REPLICAS is {text!r}: {error}") from None
    return count


def _truth_if_set(environ: Mapping[str, str], name: str) -> bool | None:
    return _truth(text) if (text := _text(environ, name)) else None


def _truth(text: str) -> bool:
    """Read a Go boolean. As in Ollama, a text that is not one counts as true."""
    return bool(text) and text not in FALSE


def _level(text: str) -> int:
    return int(text) if text.isdigit() else int(_truth(text))


def _count(environ: Mapping[str, str], name: str, default: int) -> int:
    text = _text(environ, name)
    if not text:
        return default
    if not text.isdigit():
        log.warning("%s is no whole number, using %d", name, default)
        return default
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float, *, forever_at_zero: bool) -> float:
    text = _text(environ, name)
    try:
        seconds = parse_seconds(text)
    except ValueError:
        return default
    return math.inf if seconds < 0 or (forever_at_zero and seconds == 0) else seconds


def _address(text: str) -> tuple[str, int]:
    """Read OLLAMA_HOST: [scheme://]host[:port][/path]. A port out of range gives the default one."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    # A scheme implies its own port, as in Ollama.
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT)
    rest = rest.partition("/")[0]
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port_text = tail.removeprefix(":")
    # An IPv6 address without brackets, which can have no port.
    elif rest.count(":") > 1:
        host, port_text = rest, ""
    else:
        host, _, port_text = rest.partition(":")
    if not port_text:
        return host or "127.0.0.1", default
    if port_text.isdigit() and int(port_text) <= 65535:
        return host or "127.0.0.1", int(port_text)
    log.warning("OLLAMA_HOST has a bad port, using %d", default)
    return host or "127.0.0.1", default
