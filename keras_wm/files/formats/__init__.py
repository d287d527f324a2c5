"""Formats of model files, one module each.

The module of a format has a function `recognise`. It returns the contents of a file, or
`None` if the file has another format. `bundle` tries all of them.
"""
