"""Every environment variable that Puna reads: its type, its default, what it sets, and which programs read it.

`puna.settings` reads most of them, `puna.limits` those of the bounds (PUNA_MAX_... and PUNA_TEMPLATE_..., which are
fields of Limits and not repeated here). tools/list_variables.py writes the index in core/README.md from both, and the
command line takes its help texts from here. tests/core/test_variables.py compares this list with what the readers ask
for.
"""

from dataclasses import dataclass
from typing import Final

from puna.auth.permissions import EXPOSURES
from puna.replica_count import ROUTINGS
from puna.request_log import FORMS

CORE: Final = "core"
"""`puna serve` and `puna core`."""
BRIDGE: Final = "bridge"
"""`puna serve` and `puna rest`."""
CLIENT: Final = "client"
"""The commands that ask a running server."""
NODE: Final = "node"
"""`puna node`."""


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable."""

    name: str
    kind: str
    """"address", "boolean", "duration", "integer", "list" (separated by commas), "path", "range" ("2", "1-4") or
    "text"."""
    default: str
    """The default in words; empty: unset."""
    about: str
    """What it sets, as the end of a sentence."""
    read_by: tuple[str, ...] = (CORE,)
    in_file: bool = True
    """Whether the configuration file may set it; see `key`."""
    choices: tuple[str, ...] = ()
    """The permitted texts, or elements of a list; empty: any."""
    short: str = ""
    """A shorter text for help output; empty: `about`."""

    @property
    def key(self) -> str:
        """Its key in the configuration file: the name without prefix in lower case; empty if it has none."""
        prefix, _, rest = self.name.partition("_")
        return rest.lower() if self.in_file and prefix in ("OLLAMA", "PUNA") else ""


# A group of its own: help texts sum these up in one line. See `read_by`.
_REGISTRY: Final = (
    Variable(
        "PUNA_REGISTRY_HOST", "text", "", "the registry that the next three belong to, `[scheme://]host[:port]`; https"
    ),
    Variable("PUNA_REGISTRY_USERNAME", "text", "", "user name for that registry"),
    Variable("PUNA_REGISTRY_PASSWORD", "text", "", "password for that registry"),
    Variable("PUNA_REGISTRY_TOKEN", "text", "", "identity token for that registry, instead of name and password"),
    Variable("DOCKER_AUTH_CONFIG", "text", "", "docker's configuration as JSON, for the credentials in it"),
    Variable("DOCKER_CONFIG", "path", "`~/.docker`", "folder of docker's `config.json`, for the credentials in it"),
    Variable(
        "PUNA_ALLOWED_REGISTRIES",
        "list",
        "all",
        "registries that `pull`, `push` and `create` may use: `[scheme://]host[:port]` or `*.domain`",
    ),
    Variable(
        "PUNA_REGISTRY_PEERS",
        "list",
        "",
        "hosts that registries may refer to although they have private addresses or speak http",
    ),
    Variable(
        "PUNA_REGISTRY_REALMS",
        "list",
        "Docker Hub's and GitLab's",
        "token servers on other hosts that get a registry's credentials: `registry=host`",
    ),
)

_CONNECTIONS: Final = (
    Variable(
        "PUNA_KEEPALIVE_TIME",
        "duration",
        "1m",
        "silence after which the core pings a gRPC client; 0: never",
    ),
    Variable(
        "PUNA_KEEPALIVE_TIMEOUT",
        "duration",
        "20s",
        "how long the client may take to answer before its connection is closed",
    ),
    Variable(
        "PUNA_CONNECTION_AGE",
        "duration",
        "unlimited",
        "age at which a gRPC connection takes no more calls, so that its client opens another one",
    ),
    Variable(
        "PUNA_CONNECTION_AGE_GRACE",
        "duration",
        "unlimited",
        "how long the calls on such a connection may go on",
    ),
    Variable(
        "PUNA_DRAIN_DELAY",
        "duration",
        "0",
        "how long requests are still accepted after the first signal, while the health service says NOT_SERVING",
        (CORE, BRIDGE),
    ),
)

VARIABLES: Final = (
    Variable("OLLAMA_HOST", "address", "`127.0.0.1:11434`", "address of the REST bridge", (BRIDGE,)),
    Variable(
        "OLLAMA_ORIGINS", "list", "", "origins of browser pages that may call the API, beside local ones", (BRIDGE,)
    ),
    Variable(
        "PUNA_ALLOWED_HOSTS",
        "list",
        "",
        "host names by which requests may call this server; SECURITY.md has the rule",
        (BRIDGE,),
    ),
    Variable(
        "PUNA_GRPC_HOST",
        "address",
        "the port after the bridge's",
        "address of the gRPC core",
        (CORE, BRIDGE, CLIENT),
    ),
    Variable(
        "PUNA_METRICS_HOST", "address", "off", "address on which Prometheus asks for metrics, such as `127.0.0.1:9464`"
    ),
    Variable(
        "PUNA_METRICS_PREFIX",
        "text",
        "`puna`",
        "prefix of the metrics' names: `puna`, or `vllm` for boards that exist",
        choices=("puna", "vllm"),
    ),
    Variable("PUNA_LOG_FORMAT", "text", "`text`", "form of log lines: `text` or `json`", (CORE, BRIDGE), choices=FORMS),
    Variable(
        "PUNA_REST_METRICS",
        "boolean",
        "off",
        "whether the REST face serves metrics under `/metrics`",
        (CORE, BRIDGE),
    ),
    Variable(
        "PUNA_TRACES",
        "boolean",
        "off",
        "whether the traces of requests are exported by OTLP; OpenTelemetry's own variables say where to",
    ),
    Variable("PUNA_TRACES_CONTENT", "boolean", "off", "whether these traces have the texts of prompts and answers"),
    Variable(
        "PUNA_RECORDS",
        "boolean",
        "off",
        "whether the server keeps records of its last requests, in memory, with prompts and answers",
    ),
    Variable(
        "PUNA_RECORDS_CONTENT",
        "text",
        "`all`",
        "texts that these records have: `all`, `prompts`, `answers` or `none`",
        choices=("all", "prompts", "answers", "none"),
    ),
    Variable(
        "PUNA_RECORDS_REDACTION",
        "path",
        "",
        "file of patterns, one in each line; what they match is removed from these texts",
    ),
    Variable(
        "PUNA_DASHBOARD",
        "boolean",
        "on",
        "whether the REST face serves the dashboard under `/dashboard`",
        (CORE, BRIDGE),
    ),
    *_CONNECTIONS,
    Variable(
        "PUNA_REPLICAS",
        "range",
        "1",
        "hosts that load a model: `2`, or `1-4`, which grows while requests wait and shrinks when hosts are idle",
    ),
    Variable(
        "PUNA_ROUTING",
        "text",
        "`prefix`",
        "how a model with several replicas chooses one for a request: by the longest cached prefix of the prompt and "
        "the expected wait (`prefix`), by `least-loaded`, by the header `x-session-id` (`session`), or at `random`",
        choices=ROUTINGS,
        short="how a model chooses among its replicas: `prefix`, `least-loaded`, `session` or `random`",
    ),
    Variable(
        "PUNA_LAUNCHER",
        "text",
        "`local`",
        "where model hosts run: `local`, on this machine, `static`, on the nodes that PUNA_HOSTS names, `ray`, on a Ray"
        " cluster",
        choices=("local", "static", "ray"),
    ),
    Variable("PUNA_HOSTS", "list", "", "addresses of nodes, `host:port`; each runs `puna node run`"),
    Variable(
        "PUNA_CLUSTER_TLS",
        "path",
        "`cluster/core` or `cluster/node` beside the configuration",
        "folder with `ca.crt`, `tls.crt` and `tls.key`, by which cores and nodes know each other",
        (CORE, NODE),
    ),
    Variable(
        "PUNA_NODE_CACHE",
        "path",
        "`puna/node` in the user's cache folder",
        "folder in which a node keeps files of models that it gets from cores; several nodes may share it",
        (NODE,),
    ),
    Variable(
        "PUNA_BATCHES",
        "path",
        "`$XDG_DATA_HOME/puna/batches`",
        "folder of batches and of the files of clients; one server uses it at a time",
    ),
    Variable("PUNA_KEYS", "path", "`keys.json` beside the configuration", "file of API keys; see SECURITY.md"),
    Variable("PUNA_API_KEY", "text", "", "API key that a command sends", (CLIENT,), in_file=False),
    Variable(
        "PUNA_EXPOSE",
        "list",
        "all",
        "what the server offers: generate, chat, embed, tokenize, rank, batch, models, manage, server",
        choices=EXPOSURES,
    ),
    Variable(
        "PUNA_ALLOW_ANONYMOUS",
        "boolean",
        "0",
        "whether a server that others can reach may serve callers without a key",
        (CORE, BRIDGE),
    ),
    Variable(
        "PUNA_TLS_CERTIFICATE",
        "path",
        "no TLS",
        "the server's certificate chain in PEM, for both faces",
        (CORE, BRIDGE),
    ),
    Variable("PUNA_TLS_KEY", "path", "", "the certificate's private key in PEM", (CORE, BRIDGE)),
    Variable(
        "PUNA_TLS_CLIENT_CA",
        "path",
        "",
        "certificates in PEM that sign those of clients, which then need one",
        (CORE, BRIDGE),
    ),
    Variable(
        "PUNA_TLS_CA",
        "path",
        "the system's",
        "certificates in PEM by which a command checks the core's",
        (BRIDGE, CLIENT),
    ),
    Variable("OLLAMA_MODELS", "path", "`~/.ollama/models`", "folder of the model store"),
    Variable(
        "OLLAMA_CONTEXT_LENGTH",
        "integer",
        "4096",
        "context length in tokens where neither the request nor the model sets one",
        short="tokens of context, unless request or model sets them",
    ),
    Variable("OLLAMA_NUM_PARALLEL", "integer", "16, or fewer by memory", "sequences of one model that run at once"),
    Variable(
        "OLLAMA_MAX_LOADED_MODELS",
        "integer",
        "3 for each machine",
        "models that are loaded at once; those that share their weights count as one",
    ),
    Variable("OLLAMA_MAX_QUEUE", "integer", "512", "requests that may wait; one more is refused"),
    Variable("OLLAMA_KEEP_ALIVE", "duration", "5m", "how long a model stays loaded after its last request"),
    Variable("OLLAMA_LOAD_TIMEOUT", "duration", "5m", "how long a load may make no progress"),
    Variable("OLLAMA_FLASH_ATTENTION", "boolean", "the backend decides", "whether to use flash attention"),
    Variable("OLLAMA_KV_CACHE_TYPE", "text", "f16", "type of the KV cache, such as q8_0"),
    Variable("OLLAMA_NOPRUNE", "boolean", "0", "whether to keep blobs that no model uses when the server starts"),
    Variable(
        "OLLAMA_GO_TEMPLATE",
        "boolean",
        "the more capable one",
        "whether to prefer a model's Go template to its Jinja template",
    ),
    Variable("OLLAMA_REMOTES", "list", "ollama.com", "hosts of remote models that are known by name"),
    Variable(
        "OLLAMA_DEBUG", "integer", "0", "1 logs requests, their ids, and the output of model hosts", (CORE, BRIDGE)
    ),
    Variable("PUNA_BACKEND", "text", "by format", "backend of models that name none"),
    Variable("PUNA_PLUGINS", "list", "all", "names of the backends that may be used"),
    Variable(
        "PUNA_PLUGINS_FOLDER",
        "path",
        "`$XDG_DATA_HOME/puna/plugins`",
        "folder of backends that no Python distribution beside Puna announces",
    ),
    Variable(
        "PUNA_PASS_ENVIRONMENT",
        "list",
        "",
        "further variables that host processes and converters inherit; `ACME_*` names all that begin so",
        in_file=False,
    ),
    Variable(
        "PUNA_KERNELS",
        "boolean",
        "1",
        "whether llama.cpp runs with Puna's own kernels where they fit; `exact`: with those that have ggml's bits",
    ),
    Variable("XDG_RUNTIME_DIR", "path", "the folder for temporary files", "folder of the sockets of host processes"),
    *_REGISTRY,
    Variable(
        "OLLAMA_NOHISTORY", "boolean", "0", "whether `puna run` keeps no history of what was typed", (CLIENT,), False
    ),
)

INTERNAL: Final = {
    "PUNA_HOST_SOCKET": "set by the core for each host process: the path of the socket to listen on",
}
"""Variables that the core sets for its own processes."""

_BY_NAME: Final = {each.name: each for each in VARIABLES}


def variable(name: str) -> Variable:
    """Return a variable by its name. Raises KeyError for an unknown one."""
    return _BY_NAME[name]


def help_line(name: str) -> tuple[str, str]:
    """Return a variable's name and its text for help output, with the default."""
    each = variable(name)
    text = (each.short or each.about).replace("`", "")
    return name, f"{text} (default: {each.default.replace('`', '')})" if each.default else text


def read_by(*programs: str) -> list[str]:
    """Return the names of the variables that any of these programs reads, registries apart, in the list's order."""
    return [
        each.name
        for each in VARIABLES
        if each not in _REGISTRY and any(program in each.read_by for program in programs)
    ]
