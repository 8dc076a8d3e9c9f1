"""Degradations: operations drawn from ranges, and the pipelines they form.

A new operation is one registered class in a family's file; a new family is also imported by `pipeline`.
"""

from metarestore.degradations.base import OPERATIONS, Degradation, DegradationDraw, Params, register
from metarestore.degradations.pipeline import AnyDegradation, Pipeline, replay
from metarestore.degradations.resample import bicubic_downsample, bicubic_upsample

__all__ = [
    "OPERATIONS",
    "AnyDegradation",
    "Degradation",
    "DegradationDraw",
    "Params",
    "Pipeline",
    "bicubic_downsample",
    "bicubic_upsample",
    "register",
    "replay",
]
