-- Sums over users replace the totals: by phase of the plan, since the assignment and since the first impression, with
-- squares and products; users by the date of their start and how many of them came back; events that count for nothing
-- by arm. The totals come again from the workers' state.

CREATE TABLE IF NOT EXISTS user_sums ${on_cluster}
(
    generation                       UInt32,
    experiment                       LowCardinality(String),
    arm                              LowCardinality(String),
    dimension                        LowCardinality(String),
    value                            String,
    phase                            Int64,
    partition                        UInt32,
    assigned_users                   Int64,
    clicks                           Int64,
    conversions                      Int64,
    revenue_minor                    Int128,
    capped_revenue_minor             Int128,
    converted_users                  Int128,
    pre_value                        Int128,
    declared_1                       Int128,
    declared_2                       Int128,
    declared_3                       Int128,
    declared_4                       Int128,
    exposed_users                    Int64,
    impressions                      Int64,
    clicked_impressions              Int64,
    converted_impressions            Int64,
    latency_ms                       Int128,
    timed_impressions                Int128,
    exposed_clicks                   Int128,
    exposed_conversions              Int128,
    exposed_revenue_minor            Int128,
    exposed_capped_revenue_minor     Int128,
    exposed_converted_users          Int128,
    exposed_pre_value                Int128,
    exposed_declared_1               Int128,
    exposed_declared_2               Int128,
    exposed_declared_3               Int128,
    exposed_declared_4               Int128,
    mixed_users                      Int64,
    mixed_events                     Int64,
    before_assignment                Int64,
    foreign_currency                 Int64,
    clicks_sq                        Int128,
    conversions_sq                   Int128,
    revenue_sq                       Int128,
    capped_revenue_sq                Int128,
    pre_value_sq                     Int128,
    declared_1_sq                    Int128,
    declared_2_sq                    Int128,
    declared_3_sq                    Int128,
    declared_4_sq                    Int128,
    impressions_sq                   Int128,
    clicked_sq                       Int128,
    converted_sq                     Int128,
    latency_sq                       Int128,
    timed_impressions_sq             Int128,
    exposed_clicks_sq                Int128,
    exposed_conversions_sq           Int128,
    exposed_revenue_sq               Int128,
    exposed_capped_revenue_sq        Int128,
    exposed_pre_value_sq             Int128,
    exposed_declared_1_sq            Int128,
    exposed_declared_2_sq            Int128,
    exposed_declared_3_sq            Int128,
    exposed_declared_4_sq            Int128,
    clicked_x_impressions            Int128,
    converted_x_impressions          Int128,
    latency_x_timed_impressions      Int128,
    revenue_x_conversions            Int128,
    pre_value_x_foretold             Int128,
    declared_1_x_2                   Int128,
    declared_1_x_3                   Int128,
    declared_1_x_4                   Int128,
    declared_2_x_3                   Int128,
    declared_2_x_4                   Int128,
    declared_3_x_4                   Int128,
    exposed_revenue_x_conversions    Int128,
    exposed_pre_value_x_foretold     Int128,
    exposed_declared_1_x_2           Int128,
    exposed_declared_1_x_3           Int128,
    exposed_declared_1_x_4           Int128,
    exposed_declared_2_x_3           Int128,
    exposed_declared_2_x_4           Int128,
    exposed_declared_3_x_4           Int128,
    exposed_declared_1_x_impressions Int128,
    exposed_declared_2_x_impressions Int128,
    exposed_declared_3_x_impressions Int128,
    exposed_declared_4_x_impressions Int128,
    version                          UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, experiment, dimension, value, arm, phase, partition);

CREATE TABLE IF NOT EXISTS cohorts ${on_cluster}
(
    generation UInt32,
    experiment LowCardinality(String),
    arm        LowCardinality(String),
    dimension  LowCardinality(String),
    value      String,
    phase      Int64,
    since      LowCardinality(String),
    start_date Date32,
    partition  UInt32,
    users      Int64,
    active_d1  Int64,
    active_d7  Int64,
    active_d30 Int64,
    version    UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, experiment, dimension, value, arm, phase, since, start_date, partition);

CREATE TABLE IF NOT EXISTS troubles ${on_cluster}
(
    generation UInt32,
    experiment LowCardinality(String),
    arm        LowCardinality(String),
    partition  UInt32,
    late       Int64,
    duplicate  Int64,
    rejected   Int64,
    orphaned   Int64,
    version    UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, experiment, arm, partition);

CREATE TABLE IF NOT EXISTS declared_metrics ${on_cluster}
(
    generation UInt32,
    experiment LowCardinality(String),
    metric     String,
    partition  UInt32,
    slot       Int64,
    since_ms   Int64,
    version    UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, experiment, metric, partition);

CREATE OR REPLACE VIEW newest_totals ${on_cluster} AS
SELECT * EXCEPT (generation)
FROM user_sums FINAL
WHERE generation = (SELECT max(generation) FROM generations);

CREATE OR REPLACE VIEW largest_total_values ${on_cluster} AS
SELECT experiment, dimension, value
FROM newest_totals
WHERE dimension != 'all'
GROUP BY experiment, dimension, value
ORDER BY sum(impressions) DESC, sum(assigned_users) DESC, value ASC
LIMIT 50 BY experiment, dimension;

CREATE OR REPLACE VIEW newest_slice_totals ${on_cluster} AS
SELECT * EXCEPT (dimension, value),
    multiIf(
        dimension = 'all', 'all',
        (experiment, dimension, value) IN (SELECT experiment, dimension, value FROM largest_total_values),
        concat(dimension, '=', value),
        concat(dimension, '=__other__')
    ) AS slice
FROM newest_totals;

CREATE OR REPLACE VIEW arm_sums ${on_cluster} AS
SELECT experiment, arm, slice, phase,
    sum(t.assigned_users) AS assigned_users, sum(t.clicks) AS clicks, sum(t.conversions) AS conversions,
    sum(t.revenue_minor) AS revenue_minor, sum(t.capped_revenue_minor) AS capped_revenue_minor,
    sum(t.converted_users) AS converted_users, sum(t.pre_value) AS pre_value, sum(t.declared_1) AS declared_1,
    sum(t.declared_2) AS declared_2, sum(t.declared_3) AS declared_3, sum(t.declared_4) AS declared_4,
    sum(t.exposed_users) AS exposed_users, sum(t.impressions) AS impressions,
    sum(t.clicked_impressions) AS clicked_impressions, sum(t.converted_impressions) AS converted_impressions,
    sum(t.latency_ms) AS latency_ms, sum(t.timed_impressions) AS timed_impressions,
    sum(t.exposed_clicks) AS exposed_clicks, sum(t.exposed_conversions) AS exposed_conversions,
    sum(t.exposed_revenue_minor) AS exposed_revenue_minor,
    sum(t.exposed_capped_revenue_minor) AS exposed_capped_revenue_minor,
    sum(t.exposed_converted_users) AS exposed_converted_users, sum(t.exposed_pre_value) AS exposed_pre_value,
    sum(t.exposed_declared_1) AS exposed_declared_1, sum(t.exposed_declared_2) AS exposed_declared_2,
    sum(t.exposed_declared_3) AS exposed_declared_3, sum(t.exposed_declared_4) AS exposed_declared_4,
    sum(t.mixed_users) AS mixed_users, sum(t.mixed_events) AS mixed_events,
    sum(t.before_assignment) AS before_assignment, sum(t.foreign_currency) AS foreign_currency,
    sum(t.clicks_sq) AS clicks_sq, sum(t.conversions_sq) AS conversions_sq, sum(t.revenue_sq) AS revenue_sq,
    sum(t.capped_revenue_sq) AS capped_revenue_sq, sum(t.pre_value_sq) AS pre_value_sq,
    sum(t.declared_1_sq) AS declared_1_sq, sum(t.declared_2_sq) AS declared_2_sq,
    sum(t.declared_3_sq) AS declared_3_sq, sum(t.declared_4_sq) AS declared_4_sq,
    sum(t.impressions_sq) AS impressions_sq, sum(t.clicked_sq) AS clicked_sq, sum(t.converted_sq) AS converted_sq,
    sum(t.latency_sq) AS latency_sq, sum(t.timed_impressions_sq) AS timed_impressions_sq,
    sum(t.exposed_clicks_sq) AS exposed_clicks_sq, sum(t.exposed_conversions_sq) AS exposed_conversions_sq,
    sum(t.exposed_revenue_sq) AS exposed_revenue_sq, sum(t.exposed_capped_revenue_sq) AS exposed_capped_revenue_sq,
    sum(t.exposed_pre_value_sq) AS exposed_pre_value_sq, sum(t.exposed_declared_1_sq) AS exposed_declared_1_sq,
    sum(t.exposed_declared_2_sq) AS exposed_declared_2_sq, sum(t.exposed_declared_3_sq) AS exposed_declared_3_sq,
    sum(t.exposed_declared_4_sq) AS exposed_declared_4_sq, sum(t.clicked_x_impressions) AS clicked_x_impressions,
    sum(t.converted_x_impressions) AS converted_x_impressions,
    sum(t.latency_x_timed_impressions) AS latency_x_timed_impressions,
    sum(t.revenue_x_conversions) AS revenue_x_conversions, sum(t.pre_value_x_foretold) AS pre_value_x_foretold,
    sum(t.declared_1_x_2) AS declared_1_x_2, sum(t.declared_1_x_3) AS declared_1_x_3,
    sum(t.declared_1_x_4) AS declared_1_x_4, sum(t.declared_2_x_3) AS declared_2_x_3,
    sum(t.declared_2_x_4) AS declared_2_x_4, sum(t.declared_3_x_4) AS declared_3_x_4,
    sum(t.exposed_revenue_x_conversions) AS exposed_revenue_x_conversions,
    sum(t.exposed_pre_value_x_foretold) AS exposed_pre_value_x_foretold,
    sum(t.exposed_declared_1_x_2) AS exposed_declared_1_x_2,
    sum(t.exposed_declared_1_x_3) AS exposed_declared_1_x_3,
    sum(t.exposed_declared_1_x_4) AS exposed_declared_1_x_4,
    sum(t.exposed_declared_2_x_3) AS exposed_declared_2_x_3,
    sum(t.exposed_declared_2_x_4) AS exposed_declared_2_x_4,
    sum(t.exposed_declared_3_x_4) AS exposed_declared_3_x_4,
    sum(t.exposed_declared_1_x_impressions) AS exposed_declared_1_x_impressions,
    sum(t.exposed_declared_2_x_impressions) AS exposed_declared_2_x_impressions,
    sum(t.exposed_declared_3_x_impressions) AS exposed_declared_3_x_impressions,
    sum(t.exposed_declared_4_x_impressions) AS exposed_declared_4_x_impressions,
    sum(t.version) AS version
FROM newest_slice_totals AS t
GROUP BY experiment, arm, slice, phase;

CREATE OR REPLACE VIEW arm_cohorts ${on_cluster} AS
SELECT experiment, arm,
    multiIf(
        dimension = 'all', 'all',
        (experiment, dimension, value) IN (SELECT experiment, dimension, value FROM largest_total_values),
        concat(dimension, '=', value),
        concat(dimension, '=__other__')
    ) AS slice,
    phase, since, start_date,
    sum(c.users) AS users, sum(c.active_d1) AS active_d1, sum(c.active_d7) AS active_d7, sum(c.active_d30) AS active_d30
FROM cohorts AS c FINAL
WHERE generation = (SELECT max(generation) FROM generations)
GROUP BY experiment, arm, slice, phase, since, start_date
HAVING users != 0;

CREATE OR REPLACE VIEW arm_troubles ${on_cluster} AS
SELECT experiment, arm,
    sum(t.late) AS late, sum(t.duplicate) AS duplicate, sum(t.rejected) AS rejected, sum(t.orphaned) AS orphaned
FROM troubles AS t FINAL
WHERE generation = (SELECT max(generation) FROM generations)
GROUP BY experiment, arm;

CREATE OR REPLACE VIEW metric_slots ${on_cluster} AS
SELECT experiment, metric, partition, slot, since_ms
FROM declared_metrics FINAL
WHERE generation = (SELECT max(generation) FROM generations);

DROP VIEW IF EXISTS arm_moments ${on_cluster};

DROP TABLE IF EXISTS totals ${on_cluster};
