"""How fast, how small and how exact: `make bench`."""

from stream import heap

heap.use_again()  # as `liftstream worker` does, before the first import of numpy and Arrow
