"""Files of the store: blobs, digests, locks, atomic writes and integrity."""
