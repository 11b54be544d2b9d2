"""`python -m tests.hostile --records 1000000 --seed 1`: does a worker with default settings bear hostile records?

Starts a broker and a ClickHouse server of its own; exit code 1 and what is wrong when anything is.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.hostile.run import as_json, attack
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer
from tests.services.process import free_port


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="hostile ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bombs", type=int, default=2, help="of each codec")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as name,
        KafkaServer(jvm=("-Xmx1g", "-XX:+UseSerialGC")) as kafka,
        ClickHouseServer() as clickhouse,
    ):
        folder = Path(name)
        settings = {
            "broker": f"kafka://{kafka.bootstrap}",
            "clickhouse_url": clickhouse.url,
            "checkpoints": str(folder / "checkpoints"),
            "topic_prefix": "rec.",
            "web_port": str(free_port()),
        }
        report = attack(settings, folder, hostile=options.records, seed=options.seed, bombs=options.bombs)
        print(as_json(report))
        if report.wrong:
            print((folder / "worker.log").read_text()[-5_000:], file=sys.stderr)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
