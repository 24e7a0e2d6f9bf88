"""llamita and llamita-embed, the demo models, and how a store gets them."""
