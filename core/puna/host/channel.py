"""What both ends of the socket must agree on beside the messages."""

READY = "puna.backend.v1 ready"
"""The line that a host writes to standard output once it listens."""

SOCKET_VARIABLE = "PUNA_HOST_SOCKET"
"""The environment variable that tells a host where to listen."""

OPTIONS = (
    ("grpc.max_send_message_length", -1),  # pictures and vectors are as large as they are
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 4 << 20),  # errors may echo long input
    ("grpc.absolute_max_metadata_size", 8 << 20),
    ("grpc.keepalive_time_ms", 2**31 - 1),  # a dead process closes its socket: no need to ask
    ("grpc.client_idle_timeout_ms", 2**31 - 1),  # the socket's file may be gone when an idle channel connects again
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.so_reuseport", 0),
)
