-- What each worker last said of itself, and when records of each topic last came to it.

CREATE TABLE IF NOT EXISTS worker_status ${on_cluster}
(
    generation      UInt32,
    worker          String,
    heard_at        DateTime64(3, 'UTC'),
    is_ready        UInt8,
    reasons         String,
    warnings        String,
    assignments_at  Nullable(DateTime64(3, 'UTC')),
    impressions_at  Nullable(DateTime64(3, 'UTC')),
    interactions_at Nullable(DateTime64(3, 'UTC')),
    partition       UInt32,
    version         UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, worker);

CREATE OR REPLACE VIEW workers ${on_cluster} AS
SELECT worker, heard_at, toBool(is_ready) AS ready, reasons, warnings, assignments_at, impressions_at, interactions_at
FROM worker_status FINAL
WHERE generation = (SELECT max(generation) FROM generations) AND heard_at > now() - INTERVAL 1 DAY;
