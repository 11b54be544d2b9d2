"""The pure core: numpy columns and compiled kernels, no I/O."""
