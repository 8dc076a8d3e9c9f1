"""Degradations: operations whose parameters are drawn from ranges, and the pipelines that they form.

To add an operation, write one registered class in one file of this package.
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
