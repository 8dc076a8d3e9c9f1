"""A whole study: train every arm, adapt, measure, track, report."""
