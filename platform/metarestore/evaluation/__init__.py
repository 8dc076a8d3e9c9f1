"""Figures: metrics, statistics, few-shot evaluation, standard sets."""
