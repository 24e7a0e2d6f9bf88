"""Translation between JSON bodies and protobuf messages, as pure functions without sockets and event loop."""
