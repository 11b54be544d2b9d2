-- Decisions with the figures that caused them, who is the champion, and the lift over the arm without a model.
-- Decisions are an audit trail: they are shown whatever generation of the numbers they were taken on.

CREATE TABLE IF NOT EXISTS decision_rows ${on_cluster}
(
    generation          UInt32,
    id                  String,
    partition           UInt32,
    experiment          LowCardinality(String),
    kind                LowCardinality(String),
    guardrail           String,
    arm                 LowCardinality(String),
    number              Int64,
    as_of               DateTime64(3, 'UTC'),
    decided_at          DateTime64(3, 'UTC'),
    armed               Bool,
    fallback            Nullable(String),
    rule                String,
    reason              String,
    decided_by          String,
    why                 String,
    metric              String,
    window              Nullable(String),
    users               Nullable(Int64),
    control_users       Nullable(Int64),
    impressions         Nullable(Int64),
    control_impressions Nullable(Int64),
    value               Nullable(Float64),
    control_value       Nullable(Float64),
    difference          Nullable(Float64),
    always_low          Nullable(Float64),
    always_high         Nullable(Float64),
    p_always            Nullable(Float64),
    lift                Nullable(Float64),
    lift_low            Nullable(Float64),
    lift_high           Nullable(Float64),
    undone_at           Nullable(DateTime64(3, 'UTC')),
    undone_by           Nullable(String),
    undone_why          Nullable(String),
    version             UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, id, partition);

CREATE TABLE IF NOT EXISTS baseline_rows ${on_cluster}
(
    generation     UInt32,
    experiment     LowCardinality(String),
    metric         LowCardinality(String),
    arm            LowCardinality(String),
    partition      UInt32,
    baseline       LowCardinality(String),
    as_of          DateTime64(3, 'UTC'),
    users          Nullable(Int64),
    baseline_users Nullable(Int64),
    value          Nullable(Float64),
    baseline_value Nullable(Float64),
    difference     Nullable(Float64),
    always_low     Nullable(Float64),
    always_high    Nullable(Float64),
    p_always       Nullable(Float64),
    lift           Nullable(Float64),
    lift_low       Nullable(Float64),
    lift_high      Nullable(Float64),
    reason         Nullable(String),
    version        UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, experiment, metric, arm, partition);

CREATE OR REPLACE VIEW decisions ${on_cluster} AS
SELECT decided_at, id, experiment, kind, guardrail, arm, number, armed, fallback, as_of, rule, reason, decided_by, why,
    metric, window, users, control_users, impressions, control_impressions, value, control_value, difference,
    always_low, always_high, p_always, lift, lift_low, lift_high, undone_at, undone_by, undone_why
FROM decision_rows FINAL;

CREATE OR REPLACE VIEW champions ${on_cluster} AS
SELECT experiment, arm, decided_at AS since,
    leadInFrame(toNullable(decided_at)) OVER (
        PARTITION BY experiment ORDER BY decided_at, id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
    ) AS until,
    decided_by, why, metric, value, control_value, lift, lift_low, lift_high, id AS decision
FROM decision_rows FINAL
WHERE kind = 'promoted' AND undone_at IS NULL;

CREATE OR REPLACE VIEW baseline_lift ${on_cluster} AS
SELECT experiment, metric, arm, baseline, as_of, users, baseline_users, value, baseline_value, difference,
    always_low, always_high, p_always, lift, lift_low, lift_high, reason
FROM baseline_rows FINAL
WHERE generation = (SELECT max(generation) FROM generations);
