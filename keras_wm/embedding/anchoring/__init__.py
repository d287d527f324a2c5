"""Measuring the inputs that the kernels of a network are multiplied with."""
