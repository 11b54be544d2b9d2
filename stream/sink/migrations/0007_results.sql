-- Conclusions: each metric of each arm against the control, how that went minute by minute, and whether the experiment
-- can be trusted. The rules that decided the numbers stand beside them, so that whoever asks uses the same.

CREATE TABLE IF NOT EXISTS definitions ${on_cluster}
(
    generation  UInt32,
    partition   UInt32,
    definitions String,
    version     UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, partition);

CREATE TABLE IF NOT EXISTS results ${on_cluster}
(
    generation    UInt32,
    experiment    LowCardinality(String),
    slice         String,
    metric        LowCardinality(String),
    variant       LowCardinality(String),
    arm           LowCardinality(String),
    kind          LowCardinality(String),
    control       Nullable(String),
    basis         LowCardinality(String),
    users         Int64,
    control_users Nullable(Int64),
    result        Nullable(Float64),
    control_value Nullable(Float64),
    difference    Nullable(Float64),
    se            Nullable(Float64),
    fixed_low     Nullable(Float64),
    fixed_high    Nullable(Float64),
    p_fixed       Nullable(Float64),
    always_low    Nullable(Float64),
    always_high   Nullable(Float64),
    p_always      Nullable(Float64),
    p_bonferroni  Nullable(Float64),
    p_bh          Nullable(Float64),
    lift          Nullable(Float64),
    lift_low      Nullable(Float64),
    lift_high     Nullable(Float64),
    mature_share  Nullable(Float64),
    direction     LowCardinality(String),
    why_not       Nullable(String),
    counts_since  Nullable(DateTime64(3, 'UTC')),
    as_of         Nullable(DateTime64(3, 'UTC')),
    partition     UInt32,
    version       UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, experiment, slice, metric, variant, arm);

CREATE TABLE IF NOT EXISTS results_history ${on_cluster}
(
    generation    UInt32,
    experiment    LowCardinality(String),
    slice         String,
    metric        LowCardinality(String),
    variant       LowCardinality(String),
    arm           LowCardinality(String),
    minute        DateTime64(3, 'UTC'),
    users         Int64,
    control_users Nullable(Int64),
    result        Nullable(Float64),
    control_value Nullable(Float64),
    difference    Nullable(Float64),
    se            Nullable(Float64),
    always_low    Nullable(Float64),
    always_high   Nullable(Float64),
    p_always      Nullable(Float64),
    lift          Nullable(Float64),
    lift_low      Nullable(Float64),
    lift_high     Nullable(Float64),
    partition     UInt32,
    version       UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, experiment, slice, metric, variant, arm, minute);

CREATE TABLE IF NOT EXISTS health ${on_cluster}
(
    generation        UInt32,
    experiment        LowCardinality(String),
    slice             String,
    arm               LowCardinality(String),
    verdict           LowCardinality(String),
    explanation       String,
    users             Int64,
    planned_share     Nullable(Float64),
    share             Nullable(Float64),
    srm_p_fixed       Nullable(Float64),
    srm_p_sequential  Nullable(Float64),
    assigned_users    Nullable(Int64),
    exposed_users     Nullable(Int64),
    mixed_users       Nullable(Int64),
    mixed_share       Nullable(Float64),
    before_assignment Nullable(Int64),
    foreign_currency  Nullable(Int64),
    late              Nullable(Int64),
    late_share        Nullable(Float64),
    rejected          Nullable(Int64),
    rejected_share    Nullable(Float64),
    duplicate         Nullable(Int64),
    duplicate_share   Nullable(Float64),
    orphaned          Nullable(Int64),
    orphaned_share    Nullable(Float64),
    mean_pre_value    Nullable(Float64),
    p_mixed           Nullable(Float64),
    p_late            Nullable(Float64),
    p_rejected        Nullable(Float64),
    p_duplicate       Nullable(Float64),
    p_orphaned        Nullable(Float64),
    p_pre_value       Nullable(Float64),
    as_of             Nullable(DateTime64(3, 'UTC')),
    partition         UInt32,
    version           UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, experiment, slice, arm);

CREATE OR REPLACE VIEW experiment_results ${on_cluster} AS
SELECT experiment, metric, variant, kind, slice, arm, control, basis, users, control_users, result AS value,
    control_value, difference, se, fixed_low, fixed_high, p_fixed, always_low, always_high, p_always, p_bonferroni, p_bh,
    lift, lift_low, lift_high, direction, mature_share, counts_since AS since, why_not AS reason, as_of
FROM results FINAL
WHERE generation = (SELECT max(generation) FROM generations)
    AND (experiment, slice = 'all', version) IN
    (
        SELECT experiment, slice = 'all', max(version)
        FROM results
        WHERE generation = (SELECT max(generation) FROM generations)
        GROUP BY experiment, slice = 'all'
    );

CREATE OR REPLACE VIEW experiment_results_history ${on_cluster} AS
SELECT experiment, metric, variant, slice, arm, minute, users, control_users, result AS value, control_value, difference,
    se, always_low, always_high, p_always,
    min(p_always) OVER
    (
        PARTITION BY experiment, slice, metric, variant, arm
        ORDER BY minute ASC
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS least_p_always,
    lift, lift_low, lift_high
FROM results_history FINAL
WHERE generation = (SELECT max(generation) FROM generations);

CREATE OR REPLACE VIEW experiment_health ${on_cluster} AS
SELECT experiment, slice, arm, verdict, explanation AS reason, users, planned_share, share, srm_p_fixed, srm_p_sequential,
    assigned_users, exposed_users, mixed_users, mixed_share, p_mixed, late, late_share, p_late, rejected, rejected_share,
    p_rejected, duplicate, duplicate_share, p_duplicate, orphaned, orphaned_share, p_orphaned, mean_pre_value AS pre_value,
    p_pre_value,
    before_assignment, foreign_currency, as_of
FROM health FINAL
WHERE generation = (SELECT max(generation) FROM generations)
    AND (experiment, slice = 'all', version) IN
    (
        SELECT experiment, slice = 'all', max(version)
        FROM health
        WHERE generation = (SELECT max(generation) FROM generations)
        GROUP BY experiment, slice = 'all'
    );

CREATE OR REPLACE VIEW newest_definitions ${on_cluster} AS
SELECT definitions
FROM definitions FINAL
WHERE generation = (SELECT max(generation) FROM generations);

CREATE OR REPLACE VIEW newest_troubles ${on_cluster} AS
SELECT experiment, arm, partition, late, duplicate, rejected, orphaned, version
FROM troubles FINAL
WHERE generation = (SELECT max(generation) FROM generations);

CREATE OR REPLACE VIEW newest_versions ${on_cluster} AS
SELECT experiment, sum(v.version) AS version
FROM
(
    SELECT experiment, version FROM newest_totals WHERE dimension = 'all'
    UNION ALL
    SELECT experiment, version FROM newest_troubles
    UNION ALL
    SELECT experiment, version FROM cohorts FINAL
    WHERE dimension = 'all' AND generation = (SELECT max(generation) FROM generations)
) AS v
GROUP BY experiment;
