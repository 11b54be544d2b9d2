"""How fast, how small and how exact: `make bench`."""
