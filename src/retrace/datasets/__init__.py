"""Where things are on disk: one file per corpus, all giving the records of `datasets.records`."""
