"""The dashboard: static files that speak the public API from a browser. README.md says how they are built."""
