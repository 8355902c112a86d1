"""numba twins of the kernels for hosts without a GPU."""
