"""metarestore: distributed meta-learning for the restoration of real photographs."""

__version__ = "0.1.0"
