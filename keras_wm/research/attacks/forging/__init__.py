"""Forging: evidence that is made for a model which carries no such mark.

Each function tries to make a verifier accept a claim to somebody else's model. Most of
them choose something after the model was seen: a key, a reference, a set of layers, a
recipient's name, an original, or an array in the file. The model still computes the
same. `keras_wm.verification.standing` says how each of these choices is kept from
being evidence.
"""
