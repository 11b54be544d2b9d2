"""One checkpoint store per database: whoever comes with another one is refused before it counts anything."""

import time

from clickhouse_connect.driver.client import Client

from stream.errors import DamagedStore

_MEANWHILE_SECONDS = 0.5  # in which another store's worker, started at the same moment, appears


def claim(client: Client, *, generation: int, deployment: str) -> None:
    """Let a generation's rows belong to a deployment, that is to a checkpoint store.

    Raises DamagedStore when they belong to another one.
    """
    known = _claims(client, generation)
    if not known:
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


def _claims(client: Client, generation: int) -> list[str]:
    """Deployments, the first one first."""
    rows = client.query(
        "SELECT deployment FROM deployments WHERE generation = {generation:UInt32} "
        "GROUP BY deployment ORDER BY min(registered_at), deployment",
        parameters={"generation": generation},
    ).result_rows
    return [str(deployment) for (deployment,) in rows]
