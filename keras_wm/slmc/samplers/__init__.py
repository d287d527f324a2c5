"""Markov chains that sample the exact model, and proposals of effective models."""
