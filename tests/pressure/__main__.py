"""`python -m tests.pressure --minutes 10 --rate 5000`: ClickHouse is away that long under load.

Starts a broker and a ClickHouse server of its own; exit code 1 and what is wrong when anything is.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.pressure.run import outage
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer
from tests.services.process import free_port


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=5_000, help="events a second")
    parser.add_argument("--noise", type=float, default=0.1, help="the part of them that is rejected")
    parser.add_argument("--outbox-limit", default="256MiB")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="pressure-", ignore_cleanup_errors=True) as name,
        KafkaServer(jvm=("-Xmx1g", "-XX:+UseSerialGC")) as kafka,
        ClickHouseServer(Path(name) / "clickhouse") as clickhouse,
    ):
        folder = Path(name)
        settings = {
            "broker": f"kafka://{kafka.bootstrap}",
            "clickhouse_url": clickhouse.url,
            "checkpoints": str(folder / "checkpoints"),
            "web_port": str(free_port()),
            "topic_prefix": "rec.",
            "outbox_limit": options.outbox_limit,
        }
        report = outage(
            settings, folder, clickhouse, seconds=60 * options.minutes, rate=options.rate, noise_share=options.noise,
            needs_pause=False,
        )  # fmt: skip
        for sample in report.samples[:: max(1, len(report.samples) // 40)]:
            print(json.dumps(asdict(sample)))
        print(json.dumps({k: v for k, v in vars(report).items() if k != "samples"}, indent=2))
        if report.wrong:
            print((folder / "worker.log").read_text()[-5_000:], file=sys.stderr)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
