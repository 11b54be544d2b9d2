"""Partials of all partitions in, rolling windows per arm out: the second agent's pure part."""
