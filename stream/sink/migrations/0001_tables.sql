-- The private tables. Every row is an absolute total; the row with the largest version of its sorting key counts.
-- ${engine} is ReplacingMergeTree or ReplicatedReplacingMergeTree, ${on_cluster} is empty or an ON CLUSTER clause.
-- No PARTITION BY: one insert of a backfill may touch years, more partitions than a block may have.

CREATE TABLE IF NOT EXISTS generations ${on_cluster}
(
    generation UInt32,
    started_at DateTime64(3, 'UTC'),
    version    UInt64
)
ENGINE = ${engine}(version)
ORDER BY generation;

CREATE TABLE IF NOT EXISTS panes ${on_cluster}
(
    generation            UInt32,
    experiment            LowCardinality(String),
    arm                   LowCardinality(String),
    dimension             LowCardinality(String),
    value                 String,
    pane_seconds          UInt32,
    pane_start            DateTime64(3, 'UTC'),
    partition             UInt32,
    fragment              Int64,
    impressions           Int64,
    clicked_impressions   Int64,
    converted_impressions Int64,
    clicks                Int64,
    conversions           Int64,
    revenue_minor         Int128,
    version               UInt64
)
ENGINE = ${engine}(version)
PRIMARY KEY (generation, experiment, dimension, pane_seconds, pane_start)
ORDER BY (generation, experiment, dimension, pane_seconds, pane_start, arm, value, partition, fragment);

CREATE TABLE IF NOT EXISTS totals ${on_cluster}
(
    generation              UInt32,
    experiment              LowCardinality(String),
    arm                     LowCardinality(String),
    dimension               LowCardinality(String),
    value                   String,
    partition               UInt32,
    assigned_users          Int64,
    exposed_users           Int64,
    impressions             Int64,
    clicked_impressions     Int64,
    converted_impressions   Int64,
    clicks                  Int64,
    conversions             Int64,
    revenue_minor           Int128,
    mixed_users             Int64,
    mixed_events            Int64,
    before_assignment       Int64,
    foreign_currency        Int64,
    impressions_sq          Int128,
    clicked_sq              Int128,
    clicked_x_impressions   Int128,
    converted_sq            Int128,
    converted_x_impressions Int128,
    clicks_sq               Int128,
    conversions_sq          Int128,
    revenue_sq              Int128,
    revenue_x_conversions   Int128,
    version                 UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, experiment, dimension, value, arm, partition);

CREATE TABLE IF NOT EXISTS rolling ${on_cluster}
(
    generation            UInt32,
    experiment            LowCardinality(String),
    arm                   LowCardinality(String),
    dimension             LowCardinality(String),
    value                 String,
    window_seconds        UInt32,
    as_of                 DateTime64(3, 'UTC'),
    impressions           Int64,
    clicked_impressions   Int64,
    converted_impressions Int64,
    clicks                Int64,
    conversions           Int64,
    revenue_minor         Int128,
    partition             UInt32,
    version               UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, experiment, dimension, value, arm, window_seconds);

CREATE TABLE IF NOT EXISTS ledger_rows ${on_cluster}
(
    generation         UInt32,
    topic              LowCardinality(String),
    partition          UInt32,
    hour               DateTime64(3, 'UTC'),
    fragment           Int64,
    consumed           Int64,
    counted            Int64,
    duplicate          Int64,
    late               Int64,
    outside            Int64,
    rejected           Int64,
    attributed         Int64,
    waiting            Int64,
    no_reference       Int64,
    unknown_impression Int64,
    other_user         Int64,
    outside_window     Int64,
    misrouted          Int64,
    version            UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, topic, partition, hour, fragment);

CREATE TABLE IF NOT EXISTS dead_letter_rows ${on_cluster}
(
    generation UInt32,
    topic      LowCardinality(String),
    partition  UInt32,
    offset     Int64,
    record_at  DateTime64(3, 'UTC'),
    reason     LowCardinality(String),
    field      LowCardinality(String),
    rule       LowCardinality(String),
    schema_id  Int64,
    payload    String,
    version    UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, topic, partition, offset);

CREATE TABLE IF NOT EXISTS partition_status ${on_cluster}
(
    generation     UInt32,
    partition      UInt32,
    watermark      Nullable(DateTime64(3, 'UTC')),
    horizon        Nullable(DateTime64(3, 'UTC')),
    lag            Int64,
    latency_p50_ms Nullable(Int64),
    latency_p95_ms Nullable(Int64),
    latency_p99_ms Nullable(Int64),
    records        Int64,
    last_step      UInt64,
    last_step_at   DateTime64(3, 'UTC'),
    written_at     DateTime64(3, 'UTC'),
    data_as_of     Nullable(DateTime64(3, 'UTC')),
    version        UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, partition);
