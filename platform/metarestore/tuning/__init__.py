"""Hyperparameter tuning on Ray Tune: space, trials, schedulers, records, the tuning run."""
