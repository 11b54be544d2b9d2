"""The pure core: numpy columns and compiled kernels, no I/O."""

# Raised whenever the same steps could give other outputs or another state.
ENGINE_VERSION = 1
