"""What the server has done, for DiagnosticsService: records of requests, log lines and events of the server."""
