"""The recent past of the server, for DiagnosticsService: records of requests, log lines and events."""
