"""Ablations: cells, the trainings that cells share, running them in parallel, tracking."""
