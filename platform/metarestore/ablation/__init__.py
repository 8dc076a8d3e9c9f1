"""Ablation grids: cells, trainings that cells share, their running side by side, tracking."""
