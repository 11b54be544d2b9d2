"""liftstream: event-streaming ingestion and real-time experiment metrics for recommender systems."""
