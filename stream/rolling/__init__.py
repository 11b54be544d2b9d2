"""Partials of all partitions to rolling windows."""
