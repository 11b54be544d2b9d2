"""One checkpoint store per database: whoever comes with another one is refused before it counts anything."""

import time
from collections.abc import Callable

from clickhouse_connect.driver.client import Client

from stream.errors import DamagedStore

_MEANWHILE_SECONDS = 0.5  # in which another store's worker, started at the same moment, appears


def claim(client: Client, *, generation: int, deployment: str, has_written: Callable[[], bool]) -> None:
    """Let a generation's rows belong to a deployment, that is to a checkpoint store.

    has_written: whether rows of the deployment have been acknowledged by some database.
    Raises DamagedStore when the rows belong to another store, or are in another database.
    """
    known = _claims(client, generation)
    if not known:
        if has_written() and not _has_rows(client, generation):
            raise DamagedStore(
                "The checkpoint store goes on from rows that this database does not have: point "
                "LIFTSTREAM_CLICKHOUSE_URL at the database that has them, or start over with --new-generation."
            )
        client.command(
            "INSERT INTO deployments SELECT {generation:UInt32}, {deployment:String}, now64(3) AS at, "
            "18446744073709551615 - toUnixTimestamp64Milli(at)",
            parameters={"generation": generation, "deployment": deployment},
        )
        time.sleep(_MEANWHILE_SECONDS)
        known = _claims(client, generation)
    if known[0] != deployment:
        raise DamagedStore(
            f"The database belongs to another checkpoint store (deployment {known[0]}, ours is {deployment}): point "
            "LIFTSTREAM_CHECKPOINTS of all workers at the same store, or start over with --new-generation."
        )


def _has_rows(client: Client, generation: int) -> bool:
    rows = client.query(
        "SELECT count() FROM generations WHERE generation = {generation:UInt32}",
        parameters={"generation": generation},
    ).result_rows
    return bool(rows[0][0])


def _claims(client: Client, generation: int) -> list[str]:
    """Deployments, the first one first."""
    rows = client.query(
        "SELECT deployment FROM deployments WHERE generation = {generation:UInt32} "
        "GROUP BY deployment ORDER BY min(registered_at), deployment",
        parameters={"generation": generation},
    ).result_rows
    return [str(deployment) for (deployment,) in rows]
