"""Adapts a trained network to one's own camera in one command: checks, fits, chooses, compares."""

from metarestore.camera.pairs import CameraPairs, open_pairs
from metarestore.camera.run import Outcome, adapt_to_camera
from metarestore.camera.settings import Request

__all__ = ["CameraPairs", "Outcome", "Request", "adapt_to_camera", "open_pairs"]
