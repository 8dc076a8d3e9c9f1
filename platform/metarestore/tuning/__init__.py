"""Parameter studies on Ray Tune: space, trials, schedulers, records, the sweep."""
