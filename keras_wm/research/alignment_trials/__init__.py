"""Trials of the alignment: how often it finds a mark where there is none.

In each trial a new key marks its own reference, so what the reference knows of the key
is also what the test uses. The modules:

- `networks`: small networks in NumPy, which `verify` reads like a model.
- `trials`: the networks of a trial, marked without training.
- `training`: the same after training with Keras.
- `outcomes`: the p-values of all paths, and the tests of them.
"""
