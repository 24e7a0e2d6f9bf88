"""Images: decoding, encoding and their place in a sequence."""
