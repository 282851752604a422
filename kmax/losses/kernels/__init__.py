"""The losses' fast forms: closed-form gradients, strips that fit a cache, products as a CPU likes them.

Nothing here defines a loss: each function computes what the plain definition at the top of a file in `kmax.losses`
says, and a test holds both together.
"""
