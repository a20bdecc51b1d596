-- The two users of a fleet's ClickHouse: one that only adds rows, one that only reads, with limits.
--
-- Put two passwords in the places of WRITER_PASSWORD and READER_PASSWORD, and run this as an administrator after `tasktrail store init`:
--
--     sed -e "s/WRITER_PASSWORD/$WRITER/" -e "s/READER_PASSWORD/$READER/" users.sql | clickhouse-client --multiquery
--
-- It can be run again: rights and limits are set anew, passwords stay what they are. Run it again after an upgrade that brings tables.
-- On a cluster run it on every server, or put ON CLUSTER 'NAME' behind the name of each user and profile, and TO behind it. The
-- servers of a cluster must know each other by a <secret> in <remote_servers>: then a query counts as its user's on all of them.
-- Another database or other names: replace `tasktrail.` and the users' names throughout.

CREATE SETTINGS PROFILE OR REPLACE tasktrail_writer SETTINGS
    async_insert = 0,
    distributed_foreground_insert = 1,
    max_partitions_per_insert_block = 0,
    network_compression_method = 'lz4',
    allow_ddl = 0;

-- readonly forbids all that writes. Of its settings a reader may change those alone that say so, and within these bounds.
-- All readers together leave memory for the writer, and what does not fit into theirs is refused rather than put on the disk.
CREATE SETTINGS PROFILE OR REPLACE tasktrail_reader SETTINGS
    readonly = 1,
    allow_ddl = 0,
    allow_introspection_functions = 0,
    network_compression_method = 'lz4',
    max_execution_time = 60 MIN 1 MAX 60 CHANGEABLE_IN_READONLY,
    max_memory_usage = 4294967296 MIN 1 MAX 4294967296 CHANGEABLE_IN_READONLY,
    max_memory_usage_for_user = 8589934592,
    max_bytes_ratio_before_external_group_by = 0,
    max_bytes_ratio_before_external_sort = 0,
    max_bytes_ratio_before_external_distinct = 0,
    max_bytes_ratio_before_external_join = 0,
    max_result_rows = 10000000,
    max_result_bytes = 1073741824,
    result_overflow_mode = 'throw',
    max_concurrent_queries_for_user = 32,
    max_block_size = 65409 MIN 1 MAX 65536 CHANGEABLE_IN_READONLY,
    max_threads = 8 MIN 1 MAX 64 CHANGEABLE_IN_READONLY,
    max_recursive_cte_evaluation_depth = 1000 MIN 1 MAX 100000 CHANGEABLE_IN_READONLY,
    use_query_condition_cache = 1 CHANGEABLE_IN_READONLY,
    use_skip_indexes = 1 CHANGEABLE_IN_READONLY,
    use_skip_indexes_if_final = 1 CHANGEABLE_IN_READONLY,
    optimize_skip_unused_shards = 1,
    distributed_product_mode = 'global' CHANGEABLE_IN_READONLY;

CREATE USER IF NOT EXISTS tasktrail_writer IDENTIFIED WITH sha256_password BY 'WRITER_PASSWORD';

CREATE USER IF NOT EXISTS tasktrail_reader IDENTIFIED WITH sha256_password BY 'READER_PASSWORD';

ALTER USER tasktrail_writer DEFAULT DATABASE tasktrail SETTINGS PROFILE tasktrail_writer;

ALTER USER tasktrail_reader DEFAULT DATABASE tasktrail SETTINGS PROFILE tasktrail_reader;

REVOKE ALL ON *.* FROM tasktrail_writer, tasktrail_reader;

-- Rows are added and never changed. The tables that end in _local are there on a cluster.
GRANT SELECT ON tasktrail.* TO tasktrail_writer;

GRANT INSERT ON tasktrail.images TO tasktrail_writer;

GRANT INSERT ON tasktrail.losses TO tasktrail_writer;

GRANT INSERT ON tasktrail.hosts TO tasktrail_writer;

GRANT INSERT ON tasktrail.images_local TO tasktrail_writer;

GRANT INSERT ON tasktrail.losses_local TO tasktrail_writer;

GRANT INSERT ON tasktrail.hosts_local TO tasktrail_writer;

GRANT SELECT ON tasktrail.* TO tasktrail_reader;

-- What tells about our own tables, and what clients ask. They show nothing of tables that a user may not read.
GRANT SELECT ON system.columns TO tasktrail_writer, tasktrail_reader;

GRANT SELECT ON system.databases TO tasktrail_writer, tasktrail_reader;

GRANT SELECT ON system.data_skipping_indices TO tasktrail_reader;

GRANT SELECT ON system.functions TO tasktrail_reader;

GRANT SELECT ON system.numbers TO tasktrail_reader;

GRANT SELECT ON system.one TO tasktrail_writer, tasktrail_reader;

GRANT SELECT ON system.parts TO tasktrail_reader;

GRANT SELECT ON system.settings TO tasktrail_reader;

GRANT SELECT ON system.tables TO tasktrail_writer, tasktrail_reader;
