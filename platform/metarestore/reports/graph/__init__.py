"""Relation graphs as tables, figures and sentences."""
