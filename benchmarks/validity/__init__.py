"""Simulated experiments: what the intervals promise, and whether they keep it."""
