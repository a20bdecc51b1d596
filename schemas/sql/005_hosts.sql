-- Who reports: one row per boot of a host, written anew every quarter of a minute while it reports.
CREATE TABLE IF NOT EXISTS {database}.hosts{local} {on_cluster}
(
    host_id         UUID CODEC(ZSTD(1)),
    host            LowCardinality(String) CODEC(ZSTD(1)),
    boot_id         UUID CODEC(ZSTD(1)),
    claims          UUID CODEC(ZSTD(1)),
    machine         String CODEC(ZSTD(1)),
    machines        UInt8,
    recording_since DateTime64(9, 'UTC') CODEC(ZSTD(1)),
    recording       Bool,
    sent            DateTime64(9, 'UTC') CODEC(ZSTD(1)),
    boottime        UInt64 CODEC(ZSTD(1)),
    heard           DateTime64(9, 'UTC') CODEC(ZSTD(1)),
    ring_id         UInt64 CODEC(ZSTD(1)),
    position        UInt64 CODEC(ZSTD(1)),
    living          UInt32 CODEC(ZSTD(1)),
    lost            UInt64 CODEC(ZSTD(1)),
    skipped         UInt64 CODEC(ZSTD(1)),
    seen            DateTime('UTC') CODEC(ZSTD(1)),
    version         UInt64 CODEC(ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree:version}
ORDER BY (host_id, boot_id)
TTL seen + INTERVAL {retention_days} DAY
SETTINGS
    non_replicated_deduplication_window = 0,
    merge_with_ttl_timeout = 86400;

ALTER TABLE {database}.hosts{local} {on_cluster} MODIFY TTL seen + INTERVAL {retention_days} DAY SETTINGS materialize_ttl_after_modify = 0;

CREATE TABLE IF NOT EXISTS {database}.hosts {on_cluster} AS {database}.hosts{local} ENGINE = {distributed:hosts};
