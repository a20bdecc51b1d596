-- What counts: of each image and each loss the newest row, as long as it is kept. Expired rows lie in the tables until a merge.
CREATE OR REPLACE VIEW {database}.current_images{local} {on_cluster} AS
SELECT *, cpid, ended FROM {database}.images{local} FINAL WHERE seen >= now('UTC') - INTERVAL {retention_days} DAY;

CREATE OR REPLACE VIEW {database}.current_losses{local} {on_cluster} AS
SELECT * FROM {database}.losses{local} FINAL WHERE seen >= now('UTC') - INTERVAL {retention_days} DAY;

-- On a cluster every server looks through its own view, so that it sends what was asked for and not its rows.
CREATE TABLE IF NOT EXISTS {database}.current_images {on_cluster} AS {database}.current_images{local} ENGINE = {distributed:current_images};

CREATE TABLE IF NOT EXISTS {database}.current_losses {on_cluster} AS {database}.current_losses{local} ENGINE = {distributed:current_losses};
