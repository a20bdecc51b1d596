-- What questions by name need of each image, so that they need not read images: which program it was, and below which ones.
-- A row of images makes a row here with the same key and version, so the newest row here belongs to the newest there.
-- Rows are small and so are granules: a program that few ran is in few of them, and the indexes leave out all others.
-- The primary key is one number, of the boot and of about when the process was created in it: thousands of these are found many
-- times faster than as many whole keys, and take a fifth of the memory. Boots that share a number only lie among each other.
CREATE TABLE IF NOT EXISTS {database}.programs{local} {on_cluster}
(
    place          UInt64 CODEC(Delta(8), ZSTD(1)),
    week           Date CODEC(ZSTD(1)),
    host_id        UUID CODEC(ZSTD(1)),
    host           LowCardinality(String) CODEC(ZSTD(1)),
    boot_id        UUID CODEC(ZSTD(1)),
    start_boottime UInt64 CODEC(Delta(8), ZSTD(1)),
    tgid           UInt32 CODEC(Delta(4), ZSTD(1)),
    exec_id        UInt64 CODEC(T64, ZSTD(1)),
    kind           Enum8('exec' = 1, 'fork' = 2, 'seen' = 3, 'unknown' = 4) CODEC(ZSTD(1)),
    begin          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    comm           String CODEC(ZSTD(3)),
    renamed        String CODEC(ZSTD(1)),
    exe            String CODEC(ZSTD(3)),
    uid            UInt32 CODEC(ZSTD(1)),
    user           LowCardinality(String) CODEC(ZSTD(1)),
    above_comm     Array(String) CODEC(ZSTD(6)),
    above_exe      Array(String) CODEC(ZSTD(6)),
    seen           DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    version        UInt64 CODEC(Delta(8), ZSTD(1)),

    INDEX begin_index      begin TYPE minmax GRANULARITY 1,
    INDEX host_id_index    host_id TYPE set(64) GRANULARITY 32,
    INDEX host_index       host TYPE set(64) GRANULARITY 32,
    -- Each twice: the coarse one is a small part of the fine one and says where that has to be read.
    INDEX comm_coarse      (comm, renamed) TYPE bloom_filter(0.001) GRANULARITY 32,
    INDEX comm_index       (comm, renamed) TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX exe_coarse       arrayElement(splitByChar('/', exe), -1) TYPE bloom_filter(0.001) GRANULARITY 32,
    INDEX exe_index        arrayElement(splitByChar('/', exe), -1) TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX above_comm_index above_comm TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX above_exe_index  arrayMap(path -> arrayElement(splitByChar('/', path), -1), above_exe) TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree:version}
PARTITION BY week
PRIMARY KEY place
ORDER BY (place, host_id, boot_id, start_boottime, tgid, exec_id)
TTL seen + INTERVAL {retention_days} DAY
SETTINGS
    index_granularity = 128,
    non_replicated_deduplication_window = 0,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    min_compressed_bytes_to_fsync_after_merge = 1,
    merge_with_ttl_timeout = 86400;

ALTER TABLE {database}.programs{local} {on_cluster} MODIFY TTL seen + INTERVAL {retention_days} DAY SETTINGS materialize_ttl_after_modify = 0;

-- Above are the programs of the part of the chain that its process inherited, as far as a row of images knows them.
CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.programs_view{local} {on_cluster} TO {database}.programs{local} AS
SELECT
    bitOr(bitShiftLeft(cityHash64(host_id, boot_id), 36), bitShiftRight(start_boottime, 28)) AS place, toMonday(start) AS week,
    host_id, host, boot_id, start_boottime, tgid, exec_id, kind, begin, comm, renamed, exe, uid, user,
    arrayDistinct(arrayFilter((x, id) -> id <= creator_exec_id, chain_comm, arrayResize(chain_exec_id, length(chain_comm)))) AS above_comm,
    arrayDistinct(arrayFilter((x, id) -> id <= creator_exec_id, chain_exe, arrayResize(chain_exec_id, length(chain_exe)))) AS above_exe,
    seen, version
FROM {database}.images{local};

CREATE TABLE IF NOT EXISTS {database}.programs {on_cluster} AS {database}.programs{local} ENGINE = {distributed:programs};

-- Rows that were there before the table were put into it (store.filling): a week of them at a time, and the empty piece at the end.
CREATE TABLE IF NOT EXISTS {database}.schema_fills {on_cluster}
(
    name      String,
    piece     String,
    filled_at DateTime64(9, 'UTC') DEFAULT now64(9)
)
ENGINE = {engine_of_all:ReplacingMergeTree:filled_at}
ORDER BY (name, piece)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
