from pathlib import Path

import pytest

from tests.app.process import worker_settings
from tests.pressure.run import outage
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer


@pytest.mark.usefixtures("clickhouse_server")  # skips where none can run
def test_without_clickhouse_a_worker_pauses_at_its_limit_in_its_group_and_catches_up_exactly(
    kafka: KafkaServer, unique: str, tmp_path: Path
) -> None:
    with ClickHouseServer(tmp_path / "clickhouse") as own:  # it is killed
        settings = worker_settings(kafka, own.url_of(unique), tmp_path, unique, outbox_limit="500KiB")
        report = outage(settings, tmp_path, own, seconds=6, rate=2_000, noise_share=0.5, needs_pause=True)
    assert report.wrong == []
    # The limit, and what the running steps of two partitions put out beyond it.
    assert max(sample.outbox_bytes for sample in report.samples) < 20 << 20
    assert report.samples[-1].lag > 0
