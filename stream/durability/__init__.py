"""Journaled steps, snapshots, recovery."""
