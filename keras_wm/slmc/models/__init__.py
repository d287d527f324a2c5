"""Effective models: the linear model and attention."""
