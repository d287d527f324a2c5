"""Attacks on a mark by someone who has the model but not the key."""
