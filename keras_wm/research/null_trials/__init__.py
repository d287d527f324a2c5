"""Trials of the verdict: how often it finds a mark where there is none, on every path.

In each trial a new key is looked for in a network that knows nothing of it, in every
way that `verify` and `identify` offer. Somebody who sees all results takes the best
one. The modules:

- `hosts`: keys that cost no scrypt, and networks and files without their marks.
- `choices`: the p-values of a trial, by what was chosen after seeing them.
- `outcomes`: the tests of these p-values, and one verdict on all of them.
"""
