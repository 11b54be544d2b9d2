-- Which checkpoint store a generation's rows come from: workers on two stores would overwrite each other's totals.
-- Of several rows the earliest counts, so the version falls with time.

CREATE TABLE IF NOT EXISTS deployments ${on_cluster}
(
    generation    UInt32,
    deployment    String,
    registered_at DateTime64(3, 'UTC'),
    version       UInt64
)
ENGINE = ${engine}(version)
ORDER BY (generation, deployment);
