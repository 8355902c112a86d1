"""The GPU's kernels: Python functions that numba compiles to PTX, linked to cubins, launched through cuda.bindings."""
