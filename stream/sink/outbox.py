"""What waits to be written: by table, and of every row only the newest version."""

import numpy as np
import pyarrow as pa

from stream.sink.tables import SHAPES

_WORTHWHILE_ROWS = 5_000


class Outbox:
    """Rows by table (a key of SHAPES), in the order they came. Not thread-safe."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[pa.Table]] = {}
        self.rows = 0  # superseded ones included until `newest` is called
        self.nbytes = 0  # of these rows
        self._least_rows = 0  # when superseded ones were last dropped

    def add(self, table: str, rows: pa.Table) -> None:
        """Queue rows; empty ones are forgotten."""
        if rows.num_rows:
            self._blocks.setdefault(table, []).append(rows)
            self.rows += rows.num_rows
            self.nbytes += rows.nbytes

    def extend(self, later: "Outbox") -> None:
        """Queue all of another outbox."""
        for table, blocks in later._blocks.items():
            self._blocks.setdefault(table, []).extend(blocks)
        self.rows += later.rows
        self.nbytes += later.nbytes

    def shrink_when_doubled(self) -> None:
        """Drop superseded rows now and then: each time costs copies of all."""
        if self.rows > 2 * self._least_rows + _WORTHWHILE_ROWS:
            self.newest()

    def newest(self) -> dict[str, pa.Table]:
        """Each row once, in its newest version; the others are dropped."""
        tables = {table: newest(table, blocks) for table, blocks in self._blocks.items()}
        self._blocks = {table: [rows] for table, rows in tables.items()}
        self.rows = sum(rows.num_rows for rows in tables.values())
        self.nbytes = sum(rows.nbytes for rows in tables.values())
        self._least_rows = self.rows
        return tables


def newest(table: str, blocks: list[pa.Table]) -> pa.Table:
    """One table with the largest version of each key; of equal versions the last one that came."""
    if len(blocks) == 1:
        return blocks[0]
    rows = pa.concat_tables(blocks)
    key = SHAPES[table].stored_key
    by_version = np.argsort(rows["version"].to_numpy(), kind="stable")
    rank = np.empty_like(by_version)
    rank[by_version] = np.arange(len(rank))
    ranked = rows.select(key).append_column("rank", pa.array(rank))
    newest_rank = ranked.group_by(key, use_threads=False).aggregate([("rank", "max")])  # a third less CPU
    return rows.take(np.sort(by_version[newest_rank["rank_max"].to_numpy()]))
