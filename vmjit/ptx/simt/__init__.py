"""The SIMT engine: blocks translated to Python over NumPy arrays, all threads of many blocks at once.

It needs NumPy alone, has barriers of all kinds and the collectives of warps, and knows divergence.
"""
