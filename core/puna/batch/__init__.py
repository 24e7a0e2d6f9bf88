"""Batches of requests that run while the server is idle, and files of clients, both kept on the disk."""
