"""Training of effective models."""
