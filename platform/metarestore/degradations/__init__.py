"""Degradations: operations drawn from ranges, and the pipelines they form.

A new operation is one registered class in one file of this package.
"""

from metarestore.degradations.base import OPERATIONS, Backend, Context, Degradation, DegradationDraw, Params, register
from metarestore.degradations.pipeline import Pipeline, replay, replay_each
from metarestore.degradations.resample import bicubic_downsample, bicubic_upsample

__all__ = [
    "OPERATIONS",
    "Backend",
    "Context",
    "Degradation",
    "DegradationDraw",
    "Params",
    "Pipeline",
    "bicubic_downsample",
    "bicubic_upsample",
    "register",
    "replay",
    "replay_each",
]
