"""Self-learning Monte Carlo of electrons and spins: a scientific host network.

The equivariant Transformer of Nagai & Tomiya (2023, arXiv:2306.11527) as a surrogate of
the double-exchange model in two dimensions, with the exact model beside it.
"""
