"""Makes `open_bandit.parquet` from the sample of the Open Bandit Dataset inside the PyPI wheel obp 0.4.1.

    python -m stream.demo.make_open_bandit [WHEEL]

Without WHEEL it is downloaded (not installed: it would pull in torch). Same wheel, same rows.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

WHEEL = "obp==0.4.1"
FOLDER = "obp/dataset/obd"
CAMPAIGNS = ("all", "men", "women")
POLICIES = ("random", "bts")
TARGET = Path(__file__).with_name("open_bandit.parquet")

SCHEMA = pa.schema(
    {
        "campaign": pa.string(),
        "policy": pa.string(),
        "row": pa.int16(),  # in the sample's file of that campaign and policy, from 0
        "at": pa.timestamp("ms", tz="UTC"),
        "item": pa.int16(),
        "position": pa.int8(),  # 1 to 3, left to right
        "click": pa.bool_(),
    }
)


def download(folder: Path) -> Path:
    """Fetch the wheel into `folder` with pip and return its path."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return next(folder.glob("obp-*.whl"))


def read_sample(wheel: zipfile.ZipFile, campaign: str, policy: str) -> pa.Table:
    """One of the six files as a table of SCHEMA."""
    with wheel.open(f"{FOLDER}/{policy}/{campaign}/{campaign}.csv") as file:
        table = pyarrow.csv.read_csv(file)
    rows = len(table)
    columns = {
        "campaign": pa.array([campaign] * rows),
        "policy": pa.array([policy] * rows),
        "row": table.column(0),
        "at": table["timestamp"].cast(pa.timestamp("ms", tz="UTC"), safe=False),  # drops the microseconds
        "item": table["item_id"],
        "position": table["position"],
        "click": table["click"].cast(pa.bool_()),
    }
    return pa.table(columns).cast(SCHEMA)


def derive(wheel: Path) -> pa.Table:
    """All six files in order of time."""
    with zipfile.ZipFile(wheel) as archive:
        parts = [read_sample(archive, campaign, policy) for campaign in CAMPAIGNS for policy in POLICIES]
    order = [(name, "ascending") for name in ("at", "campaign", "policy", "row")]
    return pa.concat_tables(parts).sort_by(order)


def main() -> None:
    """Write TARGET."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(sys.argv[1]) if len(sys.argv) > 1 else download(Path(folder))
        table = derive(wheel)
    pyarrow.parquet.write_table(
        table, TARGET, compression="zstd", compression_level=19, column_encoding={"at": "DELTA_BINARY_PACKED"},
        use_dictionary=["campaign", "policy", "item", "position"], write_statistics=False,
    )  # fmt: skip
    print(f"{TARGET}: {len(table):,} rows, {TARGET.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
