"""Numbers against the user's own float model, and what they may be."""
