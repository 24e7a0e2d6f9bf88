"""Traces of requests for OpenTelemetry. Imported only if they are switched on, since the library is an extra."""
