"""Real Apache Kafka and ClickHouse servers for tests and manual runs, without Docker where possible."""
