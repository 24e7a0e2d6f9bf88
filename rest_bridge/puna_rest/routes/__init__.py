"""The routes. Each handler is one call: read, translate, RPC, translate back."""
