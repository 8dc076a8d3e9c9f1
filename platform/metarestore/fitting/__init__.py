"""Fitting: estimates the degradation of a camera from a few aligned pairs, as a task distribution."""

from metarestore.fitting.camera import CameraFit, PairFit, fit_camera, fit_pair
from metarestore.fitting.kernel import synthesise
from metarestore.fitting.write import require_task_name, write_task

__all__ = ["CameraFit", "PairFit", "fit_camera", "fit_pair", "require_task_name", "synthesise", "write_task"]
