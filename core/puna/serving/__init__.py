"""One request from its checks to its last piece, free of any transport."""
