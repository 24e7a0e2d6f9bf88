"""llamita, the demo model, and how it comes into a store."""
