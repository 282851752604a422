"""Fast forms of the losses: closed-form gradients, strips that fit a cache, matrix products that suit a CPU.

Nothing here defines a loss: each function computes what the plain definition at the top of a file in `kmax.losses`
states, and a test compares the two.
"""
