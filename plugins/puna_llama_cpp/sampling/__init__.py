"""The sampler chain and log-probabilities."""
