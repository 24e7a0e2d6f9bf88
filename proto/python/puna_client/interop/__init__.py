"""Messages in the encoding of gRPC's own protocols."""
