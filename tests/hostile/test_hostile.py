from pathlib import Path

from tests.app.process import worker_settings
from tests.hostile.run import attack
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer

RECORDS = 20_000


def test_a_worker_bears_hostile_records_and_counts_the_good_ones_among_them(
    kafka: KafkaServer, clickhouse_server: ClickHouseServer, unique: str, tmp_path: Path
) -> None:
    settings = worker_settings(
        kafka, clickhouse_server.url_of(unique), tmp_path, unique, breaker_rows="1000", breaker_share="0.5"
    )
    report = attack(settings, tmp_path, hostile=RECORDS, seed=1, bombs=1, minutes=4)
    assert report.wrong == []
    assert report.was_tripped
    assert report.reasons["unreadable"] == 3
    assert report.bad <= report.rejected
