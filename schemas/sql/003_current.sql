-- What counts: of each image and each loss the newest row, as long as it is kept. Expired rows lie in the tables until a merge.
CREATE OR REPLACE VIEW {database}.current_images {on_cluster} AS
SELECT *, cpid, ended FROM {database}.images FINAL WHERE seen >= now('UTC') - INTERVAL {retention_days} DAY;

CREATE OR REPLACE VIEW {database}.current_losses {on_cluster} AS
SELECT * FROM {database}.losses FINAL WHERE seen >= now('UTC') - INTERVAL {retention_days} DAY;
