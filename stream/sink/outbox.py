"""What waits to be written: by table, and of every row only the newest version."""

import numpy as np
import pyarrow as pa

from stream.sink.tables import SHAPES

_COALESCE_ABOVE = 4096  # rows; below it, duplicates cost less than finding them


class Outbox:
    """Rows by table name in the order they came. Not thread-safe."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[pa.Table]] = {}
        self._distinct = 0  # rows after the last coalescing
        self.rows = 0

    def add(self, table: str, rows: pa.Table) -> None:
        """Queue rows of SHAPES[table]."""
        if rows.num_rows:
            self._blocks.setdefault(table, []).append(rows)
            self.rows += rows.num_rows

    def put_back(self, taken: dict[str, pa.Table]) -> None:
        """Return what take() gave, as the oldest; the outbox coalesces when it has doubled."""
        for table, rows in taken.items():
            self._blocks.setdefault(table, []).insert(0, rows)
            self.rows += rows.num_rows
        if self.rows > max(2 * self._distinct, _COALESCE_ABOVE):
            self._blocks = {table: [newest(table, blocks)] for table, blocks in self._blocks.items()}
            self.rows = self._distinct = sum(block.num_rows for (block,) in self._blocks.values())

    def take(self) -> dict[str, pa.Table]:
        """Everything, each row once, newest version; the outbox is empty afterwards."""
        blocks, self._blocks = self._blocks, {}
        self.rows = self._distinct = 0
        return {table: newest(table, parts) for table, parts in blocks.items()}


def newest(table: str, blocks: list[pa.Table]) -> pa.Table:
    """One table with the largest version of each key; of equal versions the last one that came."""
    if len(blocks) == 1:
        return blocks[0]
    rows = pa.concat_tables(blocks)
    key = SHAPES[table].stored_key
    by_version = np.argsort(rows["version"].to_numpy(), kind="stable")
    rank = np.empty_like(by_version)
    rank[by_version] = np.arange(len(rank))
    newest_rank = rows.select(key).append_column("rank", pa.array(rank)).group_by(key).aggregate([("rank", "max")])
    return rows.take(np.sort(by_version[newest_rank["rank_max"].to_numpy()]))
