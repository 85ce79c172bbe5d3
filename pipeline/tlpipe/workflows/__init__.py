"""One module per job: each joins stages, and each is a function of the public API.

A workflow checks its options and outputs first, reports progress through a callback, prints
nothing, and returns a frozen record of what it did.
"""
