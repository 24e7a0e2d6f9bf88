"""JSON to protobuf and back, as pure functions: no sockets, no event loop, every rule testable as a table."""
