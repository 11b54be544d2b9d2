"""ClickHouse: migrations, views, writer, queries."""
