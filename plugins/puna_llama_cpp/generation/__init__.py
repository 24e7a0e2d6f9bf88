"""Text generation by continuous batching."""
