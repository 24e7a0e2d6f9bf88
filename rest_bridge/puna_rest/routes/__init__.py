"""The handlers of the routes. Each reads a body, translates it, calls one RPC, and translates the answer."""
