-- Every counted loss and every gap. Few rows: one partition.
CREATE TABLE IF NOT EXISTS {database}.losses{local} {on_cluster}
(
    host_id         UUID CODEC(ZSTD(1)),
    host            LowCardinality(String) CODEC(ZSTD(1)),
    boot_id         UUID CODEC(ZSTD(1)),
    ring_id         UInt64 CODEC(ZSTD(1)),
    position        UInt64 CODEC(Delta(8), ZSTD(1)),
    cause           Enum8('ring_full' = 1, 'skipped' = 2, 'no_recorder' = 3, 'log_hole' = 4, 'undecodable' = 5, 'rename_dropped' = 6, 'argv_shortened' = 7, 'rows_lost' = 8, 'identity_clash' = 9) CODEC(ZSTD(1)),
    begin           DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    end             DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    begin_boottime  UInt64 CODEC(Delta(8), ZSTD(1)),
    end_boottime    UInt64 CODEC(Delta(8), ZSTD(1)),
    amount          UInt64 CODEC(ZSTD(1)),
    detail          String CODEC(ZSTD(3)),
    seen            DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    version         UInt64 CODEC(Delta(8), ZSTD(1)),

    INDEX begin_index begin TYPE minmax GRANULARITY 1,
    INDEX end_index   end   TYPE minmax GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree:version}
ORDER BY (host_id, boot_id, ring_id, position, cause)
TTL seen + INTERVAL {retention_days} DAY
SETTINGS
    non_replicated_deduplication_window = 0,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    min_compressed_bytes_to_fsync_after_merge = 1,
    merge_with_ttl_timeout = 86400;

ALTER TABLE {database}.losses{local} {on_cluster} MODIFY COLUMN
    cause Enum8('ring_full' = 1, 'skipped' = 2, 'no_recorder' = 3, 'log_hole' = 4, 'undecodable' = 5, 'rename_dropped' = 6, 'argv_shortened' = 7, 'rows_lost' = 8, 'identity_clash' = 9) CODEC(ZSTD(1));

ALTER TABLE {database}.losses{local} {on_cluster} MODIFY TTL seen + INTERVAL {retention_days} DAY SETTINGS materialize_ttl_after_modify = 0;

CREATE TABLE IF NOT EXISTS {database}.losses {on_cluster} AS {database}.losses{local} ENGINE = {distributed:losses};
