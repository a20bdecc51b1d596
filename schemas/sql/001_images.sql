-- One row per program image, written when it has begun and again when it ended; the row with the largest version counts.
-- The key is of values that never change, whatever the clock does, and it is in order of time within one boot.
-- Rows may come again after a failure: the engine keeps one of each key and version. Deduplication by token is off where tables are
-- not replicated, for it loses rows: the server notes the token before it moves the part into its place, and when it is killed
-- between the two, it throws the repeat away (seen in 26.9; tests/contract/test_store_sink.py).
-- Partitions by week: a row stays in its partition for good (start does not change), and a refresh of processes that began
-- in many different weeks makes few parts.
CREATE TABLE IF NOT EXISTS {database}.images{local} {on_cluster}
(
    host_id          UUID CODEC(ZSTD(1)),
    host             LowCardinality(String) CODEC(ZSTD(1)),
    boot_id          UUID CODEC(ZSTD(1)),
    task_id          UUID CODEC(ZSTD(1)),
    tgid             UInt32 CODEC(Delta(4), ZSTD(1)),
    start_boottime   UInt64 CODEC(Delta(8), ZSTD(1)),
    exec_id          UInt64 CODEC(T64, ZSTD(1)),
    kind             Enum8('exec' = 1, 'fork' = 2, 'seen' = 3, 'unknown' = 4) CODEC(ZSTD(1)),
    start            DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    begin            DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    begin_boottime   UInt64 CODEC(Delta(8), ZSTD(1)),
    duration         UInt64 CODEC(T64, ZSTD(1)),
    end_kind         Enum8('living' = 0, 'exit' = 1, 'exec' = 2, 'superseded' = 3, 'gone' = 4, 'reboot' = 5) CODEC(ZSTD(1)),
    exit_code        UInt8 CODEC(ZSTD(1)),
    exit_signal      UInt8 CODEC(ZSTD(1)),
    core_dumped      Bool CODEC(ZSTD(1)),
    exec_failed      Bool CODEC(ZSTD(1)),
    utime            UInt64 CODEC(T64, ZSTD(1)),
    stime            UInt64 CODEC(T64, ZSTD(1)),
    max_rss_kib      UInt64 CODEC(T64, ZSTD(1)),
    comm             String CODEC(ZSTD(3)),
    renamed          String CODEC(ZSTD(1)),
    exe              String CODEC(ZSTD(3)),
    filename         String CODEC(ZSTD(3)),
    interp           String CODEC(ZSTD(1)),
    argv             Array(String) CODEC(ZSTD(6)),
    argc             UInt32 CODEC(T64, ZSTD(1)),
    argv_bytes       UInt32 CODEC(T64, ZSTD(1)),
    cwd              String CODEC(ZSTD(3)),
    exe_dev          UInt32 CODEC(ZSTD(1)),
    exe_inode        UInt64 CODEC(ZSTD(1)),
    exe_generation   UInt32 CODEC(ZSTD(1)),
    uid              UInt32 CODEC(ZSTD(1)),
    gid              UInt32 CODEC(ZSTD(1)),
    euid             UInt32 CODEC(ZSTD(1)),
    egid             UInt32 CODEC(ZSTD(1)),
    user             LowCardinality(String) CODEC(ZSTD(1)),
    loginuid         UInt32 CODEC(ZSTD(1)),
    login_user       LowCardinality(String) CODEC(ZSTD(1)),
    session          UInt32 CODEC(ZSTD(1)),
    tty              LowCardinality(String) CODEC(ZSTD(1)),
    cgroup           String CODEC(ZSTD(3)),
    cgroup_id        UInt64 CODEC(ZSTD(1)),
    pid_ns           UInt32 CODEC(ZSTD(1)),
    ns_pid           UInt32 CODEC(Delta(4), ZSTD(1)),
    mnt_ns           UInt32 CODEC(ZSTD(1)),
    user_ns          UInt32 CODEC(ZSTD(1)),
    flags            Array(LowCardinality(String)) CODEC(ZSTD(1)),
    creator_id       UUID CODEC(ZSTD(3)),
    creator_tgid     UInt32 CODEC(Delta(4), ZSTD(1)),
    creator_exec_id  UInt64 CODEC(T64, ZSTD(1)),
    creator_tid      UInt32 CODEC(Delta(4), ZSTD(1)),
    clone_flags      UInt64 CODEC(ZSTD(1)),
    parent_id        UUID CODEC(ZSTD(3)),
    parent_tgid      UInt32 CODEC(Delta(4), ZSTD(1)),
    end_parent_tgid  UInt32 CODEC(Delta(4), ZSTD(1)),
    ancestor_ids     Array(UUID) CODEC(ZSTD(3)),
    chain_kind       Array(Enum8('exec' = 1, 'fork' = 2, 'seen' = 3, 'unknown' = 4)) CODEC(ZSTD(1)),
    chain_tgid       Array(UInt32) CODEC(ZSTD(6)),
    chain_exec_id    Array(UInt64) CODEC(Delta(8), ZSTD(3)),
    chain_start      Array(DateTime64(9, 'UTC')) CODEC(ZSTD(6)),
    chain_comm       Array(String) CODEC(ZSTD(6)),
    chain_exe        Array(String) CODEC(ZSTD(6)),
    chain_complete   Bool CODEC(ZSTD(1)),
    chain_before     Bool CODEC(ZSTD(1)),
    chain_cut        Bool CODEC(ZSTD(1)),
    chain_lost       Bool CODEC(ZSTD(1)),
    ancestors_cut    Bool CODEC(ZSTD(1)),
    lost_from        DateTime64(9, 'UTC') CODEC(ZSTD(1)),
    lost_to          DateTime64(9, 'UTC') CODEC(ZSTD(1)),
    ring_id          UInt64 CODEC(ZSTD(1)),
    position         UInt64 CODEC(Delta(8), ZSTD(1)),
    epoch            UInt32 CODEC(ZSTD(1)),
    seen             DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    version          UInt64 CODEC(T64, ZSTD(1)),

    -- OCSF's Common Process Identifier: SHA-256 as a version 8 UUID, see schemas.identity.cpid.
    cpid             UUID ALIAS arrayMap(
        hash -> toUUID(UUIDNumToString(toFixedString(concat(
            substring(hash, 1, 6),
            char(bitOr(bitAnd(reinterpretAsUInt8(substring(hash, 7, 1)), 15), 128)),
            substring(hash, 8, 1),
            char(bitOr(bitAnd(reinterpretAsUInt8(substring(hash, 9, 1)), 63), 128)),
            substring(hash, 10, 7)), 16))),
        [SHA256(concat(
            UUIDStringToNum(toString(boot_id)),
            reinterpretAsFixedString(toUInt64(pid_ns)),
            reinterpretAsFixedString(toUInt64(intDiv(start_boottime, 10000000))),
            reinterpretAsFixedString(toInt64(ns_pid))))])[1],
    ended            Nullable(DateTime64(9, 'UTC')) ALIAS if(end_kind = 'living', NULL, begin + toIntervalNanosecond(duration)),

    INDEX start_index        start        TYPE minmax GRANULARITY 1,
    INDEX begin_index        begin        TYPE minmax GRANULARITY 1,
    -- Pids are handed out in order, so a stretch of one boot covers few of them.
    INDEX tgid_index         tgid         TYPE minmax GRANULARITY 1,
    -- The key begins with host_id, so one host's rows lie together.
    INDEX host_index         host         TYPE set(64) GRANULARITY 1,
    INDEX task_id_index      task_id      TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX ancestor_ids_index ancestor_ids TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree:version}
PARTITION BY toMonday(start)
ORDER BY (host_id, boot_id, start_boottime, tgid, exec_id)
TTL seen + INTERVAL {retention_days} DAY
SETTINGS
    non_replicated_deduplication_window = 0,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    min_compressed_bytes_to_fsync_after_merge = 1,
    merge_with_ttl_timeout = 86400;

ALTER TABLE {database}.images{local} {on_cluster} MODIFY TTL seen + INTERVAL {retention_days} DAY SETTINGS materialize_ttl_after_modify = 0;

-- On a cluster: all rows of a host are one server's, so that FINAL, LIMIT 1 BY and whatever compares a host's rows are right there.
CREATE TABLE IF NOT EXISTS {database}.images {on_cluster} AS {database}.images{local} ENGINE = {distributed:images};
