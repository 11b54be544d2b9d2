from pathlib import Path

import pytest

from tests.pressure.run import outage
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer
from tests.services.process import free_port


@pytest.mark.usefixtures("clickhouse_server")  # skips where none can run
def test_without_clickhouse_a_worker_pauses_at_its_limit_in_its_group_and_catches_up_exactly(
    kafka: KafkaServer, unique: str, tmp_path: Path
) -> None:
    with ClickHouseServer(tmp_path / "clickhouse") as own:  # it is killed
        settings = {
            "broker": f"kafka://{kafka.bootstrap}",
            "clickhouse_url": own.url_of(unique),
            "checkpoints": str(tmp_path / "checkpoints"),
            "topic_prefix": f"{unique}.",
            "topic_partitions": "2",
            "group": unique,
            "web_port": str(free_port()),
            "step_seconds": "0.2",
            "outbox_limit": "500KiB",
        }
        report = outage(settings, tmp_path, own, seconds=6, rate=2_000, noise_share=0.5, needs_pause=True)
    assert report.wrong == []
    # The limit, and what the running steps of two partitions put out beyond it.
    assert max(sample.outbox_bytes for sample in report.samples) < 20 << 20
    assert report.samples[-1].lag > 0
