"""Two logs as they are published, with what real ones hold, and the SQL of benchmarks/README.md that converts them."""

import gzip
import random
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

README = Path(__file__).parents[2] / "benchmarks" / "README.md"
RUN = "import sys, chdb; chdb.query(sys.stdin.read())"
DAYS = 3
YEAR_2014_S = 1_396_310_400


def write_ad_log(folder: Path, rows: int, seed: int = 1) -> None:
    """Impressions with a click in the same row: seconds since the log began, some users and campaigns very often."""
    draw = random.Random(seed)
    lines = ["timestamp\tuid\tcampaign\tcat1\tclick"]
    for _ in range(rows):
        at = int(draw.triangular(0, DAYS * 86_400))
        user = draw.choices(["", "hot", f"u{draw.randrange(rows // 8)}"], [1, 20, 79])[0]
        campaign = draw.choices(["1", "Größe-ß-漢字", str(draw.randrange(300))], [30, 5, 65])[0]
        category = draw.choice(["", "a", "b", "Spaß"])
        lines.append(f"{at}\t{user}\t{campaign}\t{category}\t{int(draw.random() < 0.1)}")
    lines += draw.sample(lines[1:], rows // 100)  # rows that are there twice
    (folder / "log.tsv.gz").write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))


def write_session_log(folder: Path, rows: int, seed: int = 2) -> None:
    """Views and purchases of sessions, not in the order of time, without impressions' ids, some without a price."""
    draw = random.Random(seed)
    views, buys = [], []
    for number in range(rows // 6):
        at = YEAR_2014_S + draw.random() * DAYS * 86_400
        session = "hot" if number % 20 == 0 else str(number)
        for _ in range(draw.randint(1, 10)):
            at += draw.choice([0, draw.expovariate(1 / 60), 40_000 * (draw.random() < 0.02)])
            item = str(int(draw.paretovariate(1)))
            views.append(f"{session},{_iso(at)},{item},{draw.choice(['', '0', 'S'])}")
            if draw.random() < 0.1:
                later = at + draw.choice([0, 0, 5, 600, 86_400, 90_000, -1])
                buys.append(
                    f"{session},{_iso(later)},{item},{draw.choice([0, 1_046, 29_800])},{draw.randint(0, 2)}"
                )
    (folder / "clicks.dat").write_text("\n".join([*views, ""]))
    (folder / "buys.dat").write_text("\n".join([*buys, ""]))


def convert(folder: Path, number: int) -> None:
    """Run one of the conversions of the README in this folder."""
    statements = re.findall(r"```sql\n(.*?)```", README.read_text(), re.DOTALL)[number]
    subprocess.run([sys.executable, "-c", RUN], input=statements, cwd=folder, text=True, check=True)


LOGS: dict[str, tuple[Callable[[Path, int], None], int]] = {
    "ads": (write_ad_log, 0),
    "sessions": (write_session_log, 1),
}


def write_log(folder: Path, name: str, rows: int) -> None:
    """impressions.parquet and interactions.parquet of a log of about so many rows."""
    write, number = LOGS[name]
    write(folder, rows)
    convert(folder, number)


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    write_log(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
