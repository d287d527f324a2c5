"""What somebody who has a model, but no key, may do to a mark in it."""
