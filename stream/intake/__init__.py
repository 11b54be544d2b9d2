"""Kafka fetch to columns."""
