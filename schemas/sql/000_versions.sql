-- Which of these files a database has, and as which text (a setting changes the text). On a cluster every server has all of it.
CREATE DATABASE IF NOT EXISTS {database} {on_cluster};

CREATE TABLE IF NOT EXISTS {database}.schema_versions {on_cluster}
(
    version     UInt32,
    name        String,
    text_sha256 String,
    applied_at  DateTime64(9, 'UTC') DEFAULT now64(9)
)
ENGINE = {engine_of_all:ReplacingMergeTree:applied_at}
ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
