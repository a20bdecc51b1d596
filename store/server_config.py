"""The embedded server's configuration: small, quiet, and closed to everybody but our two users."""

import hashlib
from typing import NamedTuple
from xml.sax.saxutils import escape

from store.address import DATABASE

READER = "tasktrail_reader"
WRITER = "tasktrail_writer"

MEMORY_BYTES = 1 << 30
"""Default cap of the server's memory. It starts with about 220 MB, most of it the program itself."""

COMPACT_BYTES = 64 << 20
"""Parts below this, not compressed, are one file and not two for each of the 75 columns, which each merge makes, syncs and removes.
Merging into one holds all columns of some rows at once, so that this is about what a merge can take of the memory."""


class Limits(NamedTuple):
    """What the server and its readers may use.

    memory_bytes     of the whole server
    query_bytes      of one reader's query, 0: half of memory_bytes
    query_seconds    of one reader's query
    result_rows      of one reader's query
    result_bytes     of one reader's query
    """

    memory_bytes: int = MEMORY_BYTES
    query_bytes: int = 0
    query_seconds: int = 60
    result_rows: int = 10_000_000
    result_bytes: int = 1 << 30


def config_xml(tcp_port: int, http_port: int, data: str, limits: Limits) -> str:
    """config.xml: where it listens and how much it uses.

    There is no <logger>: the embedded server would log at trace level whatever one says. Without sections for them, the server
    keeps none of its own log tables, which would grow for ever.
    """
    return f"""<clickhouse>
    <tcp_port>{tcp_port}</tcp_port>
    <http_port>{http_port}</http_port>
    <listen_host>127.0.0.1</listen_host>
    <timezone>UTC</timezone>
    <users_config>users.xml</users_config>
    <user_directories><users_xml><path>users.xml</path></users_xml></user_directories>
    <user_files_path>{escape(data)}/user_files/</user_files_path>
    <tmp_path>{escape(data)}/tmp/</tmp_path>
    <format_schema_path>{escape(data)}/format_schemas/</format_schema_path>
    <access_control_improvements>
        <users_without_row_policies_can_read_rows>true</users_without_row_policies_can_read_rows>
        <on_cluster_queries_require_cluster_grant>true</on_cluster_queries_require_cluster_grant>
        <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
        <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
        <table_engines_require_grant>true</table_engines_require_grant>
    </access_control_improvements>
    <max_server_memory_usage>{limits.memory_bytes}</max_server_memory_usage>
    <max_concurrent_queries>64</max_concurrent_queries>
    <max_connections>256</max_connections>
    <mark_cache_size>{limits.memory_bytes // 16}</mark_cache_size>
    <index_mark_cache_size>{limits.memory_bytes // 64}</index_mark_cache_size>
    <uncompressed_cache_size>0</uncompressed_cache_size>
    <index_uncompressed_cache_size>{limits.memory_bytes // 32}</index_uncompressed_cache_size>
    <mmap_cache_size>0</mmap_cache_size>
    <compiled_expression_cache_size>{16 << 20}</compiled_expression_cache_size>
    <query_cache><max_size_in_bytes>0</max_size_in_bytes></query_cache>
    <query_condition_cache_size>{4 << 20}</query_condition_cache_size>
    <max_thread_pool_size>256</max_thread_pool_size>
    <background_pool_size>2</background_pool_size>
    <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
    <background_move_pool_size>1</background_move_pool_size>
    <background_fetches_pool_size>1</background_fetches_pool_size>
    <background_common_pool_size>2</background_common_pool_size>
    <background_buffer_flush_schedule_pool_size>1</background_buffer_flush_schedule_pool_size>
    <background_schedule_pool_size>4</background_schedule_pool_size>
    <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
    <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
    <asynchronous_metrics_update_period_s>10</asynchronous_metrics_update_period_s>
    <allow_feature_tier>0</allow_feature_tier>
    <merge_tree>
        <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
        <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
        <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
        <old_parts_lifetime>60</old_parts_lifetime>
        <min_bytes_for_wide_part>{COMPACT_BYTES}</min_bytes_for_wide_part>
    </merge_tree>
</clickhouse>
"""


def users_xml(reader_password: str, writer_password: str, limits: Limits) -> str:
    """users.xml: the writer, the reader, and ``default``, which the server itself needs to begin to listen.

    ``default`` can have no password. The server's own session counts as coming from ::1, where it does not listen, so nobody else
    comes in as that user.
    """
    return f"""<clickhouse>
{_profiles(limits)}    <quotas><default/></quotas>
    <users>
        <default>
            <password></password>
            <profile>starter</profile>
            <quota>default</quota>
            <networks><ip>127.0.0.1</ip></networks>
            <grants>
                <query>GRANT SYSTEM LISTEN ON *.*</query>
                <query>GRANT SELECT ON system.numbers</query>
            </grants>
        </default>
        <{WRITER}>
            {_password(writer_password)}
            <profile>default</profile>
            <quota>default</quota>
            <networks><ip>127.0.0.1</ip></networks>
            <grants>
                <query>GRANT SELECT, INSERT, ALTER, CREATE, DROP, TRUNCATE, OPTIMIZE ON {DATABASE}.*</query>
                <query>GRANT TABLE ENGINE ON ReplacingMergeTree</query>
                <query>GRANT SELECT ON system.processes</query>
                {_system_grants()}
            </grants>
        </{WRITER}>
        <{READER}>
            {_password(reader_password)}
            <profile>reader</profile>
            <quota>default</quota>
            <networks><ip>127.0.0.1</ip></networks>
            <grants>
                <query>GRANT SELECT ON {DATABASE}.*</query>
                {_system_grants()}
            </grants>
        </{READER}>
    </users>
</clickhouse>
"""


def _profiles(limits: Limits) -> str:
    """What each kind of session may use; of its limits a reader may change only those named, and only downwards.

    All readers together leave room for the writer: the server itself takes about 220 MB of its memory. What does not fit into memory
    is refused rather than put on the disk, which is the recorder's (and this server's limits of temporary files do not bite).
    """
    query_bytes = limits.query_bytes or limits.memory_bytes // 2
    return f"""    <profiles>
        <default>
            <network_compression_method>lz4</network_compression_method>
            <async_insert>0</async_insert>
            <max_partitions_per_insert_block>0</max_partitions_per_insert_block>
            <log_queries>0</log_queries>
            <distributed_product_mode>global</distributed_product_mode>
            <optimize_skip_unused_shards>1</optimize_skip_unused_shards>
        </default>
        <starter>
            <profile>default</profile>
            <max_sessions_for_user>1</max_sessions_for_user>
            <max_concurrent_queries_for_user>1</max_concurrent_queries_for_user>
        </starter>
        <reader>
            <profile>default</profile>
            <readonly>1</readonly>
            <allow_ddl>0</allow_ddl>
            <allow_introspection_functions>0</allow_introspection_functions>
            <max_execution_time>{limits.query_seconds}</max_execution_time>
            <max_memory_usage>{query_bytes}</max_memory_usage>
            <max_memory_usage_for_user>{max(query_bytes, limits.memory_bytes * 3 // 5)}</max_memory_usage_for_user>
            <max_bytes_ratio_before_external_group_by>0</max_bytes_ratio_before_external_group_by>
            <max_bytes_ratio_before_external_sort>0</max_bytes_ratio_before_external_sort>
            <max_bytes_ratio_before_external_distinct>0</max_bytes_ratio_before_external_distinct>
            <max_bytes_ratio_before_external_join>0</max_bytes_ratio_before_external_join>
            <max_result_rows>{limits.result_rows}</max_result_rows>
            <max_result_bytes>{limits.result_bytes}</max_result_bytes>
            <result_overflow_mode>throw</result_overflow_mode>
            <max_concurrent_queries_for_user>32</max_concurrent_queries_for_user>
            <constraints>
                {_changeable("max_execution_time", limits.query_seconds, 1)}
                {_changeable("max_memory_usage", query_bytes, 1)}
                <distributed_product_mode><changeable_in_readonly/></distributed_product_mode>
                {_changeable("max_block_size", 65536, 1)}
                {_changeable("max_threads", 64, 1)}
                {_changeable("use_query_condition_cache", 1, 0)}
                {_changeable("use_skip_indexes", 1, 0)}
                {_changeable("use_skip_indexes_if_final", 1, 0)}
                {_changeable("max_recursive_cte_evaluation_depth", 100000, 1)}
            </constraints>
        </reader>
    </profiles>
"""


def _system_grants() -> str:
    """The server's own tables that tell about ours (they show no others), and those that clients ask."""
    tables = ("columns", "databases", "data_skipping_indices", "functions", "numbers", "one", "parts", "settings", "tables")
    return "".join(f"<query>GRANT SELECT ON system.{table}</query>" for table in tables)


def _changeable(name: str, largest: int, smallest: int) -> str:
    """A setting that a reader may lower, though readonly."""
    return f"<{name}><min>{smallest}</min><max>{largest}</max><changeable_in_readonly/></{name}>"


def _password(password: str) -> str:
    """A password as its hash: it has 256 random bits, so that no salt is needed."""
    return f"<password_sha256_hex>{hashlib.sha256(password.encode()).hexdigest()}</password_sha256_hex>"
