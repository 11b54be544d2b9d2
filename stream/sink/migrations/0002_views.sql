-- The public views: names and columns are a contract. Only the newest generation shows, only the newest version of each
-- row counts (FINAL in here, so that no reader needs it; up to eight times as fast as argMax), then fragments and
-- partitions add up. Views named newest_* and largest_* are steps on the way, not contracts.

CREATE OR REPLACE VIEW newest_panes ${on_cluster} AS
SELECT experiment, arm, dimension, value, pane_start,
    impressions, clicked_impressions, converted_impressions, clicks, conversions, revenue_minor
FROM panes FINAL
WHERE generation = (SELECT max(generation) FROM generations)
    AND ((dimension = 'all' AND pane_seconds = 10) OR (dimension != 'all' AND pane_seconds = 60));

CREATE OR REPLACE VIEW largest_pane_values ${on_cluster} AS
SELECT experiment, dimension, value
FROM newest_panes
WHERE dimension != 'all'
GROUP BY experiment, dimension, value
ORDER BY sum(impressions) DESC, value ASC
LIMIT 50 BY experiment, dimension;

CREATE OR REPLACE VIEW arm_rates ${on_cluster} AS
SELECT experiment, arm,
    multiIf(
        dimension = 'all', 'all',
        (experiment, dimension, value) IN (SELECT experiment, dimension, value FROM largest_pane_values),
        concat(dimension, '=', value),
        concat(dimension, '=__other__')
    ) AS slice,
    resolution, pane_start,
    sum(p.impressions) AS impressions,
    sum(p.clicked_impressions) AS clicked_impressions,
    if(impressions = 0, NULL, clicked_impressions / impressions) AS ctr,
    sum(p.clicks) AS clicks,
    sum(p.converted_impressions) AS converted_impressions,
    sum(p.conversions) AS conversions,
    if(impressions = 0, NULL, converted_impressions / impressions) AS conversion_rate,
    sum(p.revenue_minor) AS revenue_minor
FROM
(
    SELECT '10s' AS resolution, * FROM newest_panes WHERE dimension = 'all'
    UNION ALL
    SELECT '1m' AS resolution, * REPLACE (toStartOfMinute(pane_start) AS pane_start) FROM newest_panes
    UNION ALL
    SELECT '1h' AS resolution, * REPLACE (toStartOfHour(pane_start) AS pane_start) FROM newest_panes
) AS p
GROUP BY experiment, arm, slice, resolution, pane_start
HAVING impressions != 0 OR clicked_impressions != 0 OR clicks != 0 OR converted_impressions != 0
    OR conversions != 0 OR revenue_minor != 0;

CREATE OR REPLACE VIEW newest_totals ${on_cluster} AS
SELECT * EXCEPT (generation, version)
FROM totals FINAL
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

CREATE OR REPLACE VIEW arm_totals ${on_cluster} AS
SELECT experiment, arm, slice,
    sum(t.assigned_users) AS assigned_users,
    sum(t.exposed_users) AS exposed_users,
    sum(t.impressions) AS impressions,
    sum(t.clicked_impressions) AS clicked_impressions,
    if(impressions = 0, NULL, clicked_impressions / impressions) AS ctr,
    sum(t.clicks) AS clicks,
    sum(t.converted_impressions) AS converted_impressions,
    sum(t.conversions) AS conversions,
    if(impressions = 0, NULL, converted_impressions / impressions) AS conversion_rate,
    sum(t.revenue_minor) AS revenue_minor,
    sum(t.mixed_users) AS mixed_users,
    sum(t.mixed_events) AS mixed_events,
    sum(t.before_assignment) AS before_assignment,
    sum(t.foreign_currency) AS foreign_currency
FROM newest_slice_totals AS t
GROUP BY experiment, arm, slice
HAVING assigned_users != 0 OR exposed_users != 0 OR impressions != 0 OR clicked_impressions != 0 OR clicks != 0
    OR converted_impressions != 0 OR conversions != 0 OR revenue_minor != 0
    OR mixed_users != 0 OR mixed_events != 0 OR before_assignment != 0 OR foreign_currency != 0;

CREATE OR REPLACE VIEW arm_moments ${on_cluster} AS
SELECT experiment, arm, slice,
    sum(t.impressions_sq) AS impressions_sq,
    sum(t.clicked_sq) AS clicked_sq,
    sum(t.clicked_x_impressions) AS clicked_x_impressions,
    sum(t.converted_sq) AS converted_sq,
    sum(t.converted_x_impressions) AS converted_x_impressions,
    sum(t.clicks_sq) AS clicks_sq,
    sum(t.conversions_sq) AS conversions_sq,
    sum(t.revenue_sq) AS revenue_sq,
    sum(t.revenue_x_conversions) AS revenue_x_conversions
FROM newest_slice_totals AS t
GROUP BY experiment, arm, slice;

CREATE OR REPLACE VIEW arm_rolling ${on_cluster} AS
SELECT experiment, arm,
    if(dimension = 'all', 'all', concat(dimension, '=', value)) AS slice,
    transform(window_seconds, [60, 300, 3600, 86400], ['1m', '5m', '1h', '24h'], concat(toString(window_seconds), 's')) AS window,
    as_of,
    impressions,
    clicked_impressions,
    if(impressions = 0, NULL, clicked_impressions / impressions) AS ctr,
    clicks,
    converted_impressions,
    conversions,
    if(impressions = 0, NULL, converted_impressions / impressions) AS conversion_rate,
    revenue_minor
FROM rolling FINAL
WHERE generation = (SELECT max(generation) FROM generations);

CREATE OR REPLACE VIEW ledger ${on_cluster} AS
SELECT topic, partition, hour,
    sum(l.consumed) AS consumed,
    sum(l.counted) AS counted,
    sum(l.duplicate) AS duplicate,
    sum(l.late) AS late,
    sum(l.outside) AS outside,
    sum(l.rejected) AS rejected,
    sum(l.attributed) AS attributed,
    sum(l.waiting) AS waiting,
    no_reference + unknown_impression + other_user + outside_window AS orphaned,
    sum(l.no_reference) AS no_reference,
    sum(l.unknown_impression) AS unknown_impression,
    sum(l.other_user) AS other_user,
    sum(l.outside_window) AS outside_window,
    sum(l.misrouted) AS misrouted,
    toBool(consumed = counted + duplicate + late + outside + rejected
        AND attributed + waiting + orphaned = if(endsWith(topic, 'interactions'), counted, 0)) AS balanced
FROM ledger_rows AS l FINAL
WHERE generation = (SELECT max(generation) FROM generations)
GROUP BY topic, partition, hour
HAVING consumed != 0 OR NOT balanced;

CREATE OR REPLACE VIEW dead_letters ${on_cluster} AS
SELECT topic, partition, offset, record_at, reason, field, rule,
    if(schema_id < 0, NULL, schema_id) AS schema_id,
    if(isValidUTF8(d.payload) AND NOT match(d.payload, '[\\x00-\\x08\\x0B\\x0C\\x0E-\\x1F\\x7F]'), 'text', 'base64') AS payload_encoding,
    if(payload_encoding = 'text', d.payload, base64Encode(d.payload)) AS payload
FROM dead_letter_rows AS d FINAL
WHERE generation = (SELECT max(generation) FROM generations);

CREATE OR REPLACE VIEW pipeline_status ${on_cluster} AS
SELECT partition, watermark, horizon, lag, latency_p50_ms, latency_p95_ms, latency_p99_ms,
    last_step, last_step_at, written_at, data_as_of, records
FROM partition_status FINAL
WHERE generation = (SELECT max(generation) FROM generations);
