"""The constants that core and host share besides the messages: lines of output, variable, channel options."""

READY = "puna.backend.v1 ready"
"""The line that a host writes to standard output once it listens."""

PROGRESS = "puna.backend.v1 progress "
"""The beginning of a line on standard error that reports the progress of a load; a number from 0 to 1 follows."""

ERROR = "puna.backend.v1 error "
"""The beginning of a line on standard error that the core logs as an error of the model; a JSON string follows."""

LONGEST_REPORT = 8 << 10
"""Characters of that string."""

LONGEST_ERROR = 16 << 10
"""Characters of the text of an error."""

SOCKET_VARIABLE = "PUNA_HOST_SOCKET"
"""The environment variable with the path on which a host listens."""

OPTIONS = (
    ("grpc.max_send_message_length", -1),  # images and vectors have no bound of their own
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 4 << 20),  # an error may quote long input
    ("grpc.absolute_max_metadata_size", 8 << 20),
    ("grpc.keepalive_time_ms", 2**31 - 1),  # a dead process closes its socket, so no ping is needed
    ("grpc.client_idle_timeout_ms", 2**31 - 1),  # an idle channel could not reconnect if the socket's file was removed
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.so_reuseport", 0),
)
