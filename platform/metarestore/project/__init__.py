"""A user's project: its files by name, and its experiments with everything that they name."""

from metarestore.project.experiments import arm_experiments, read_experiment
from metarestore.project.names import Project, catalogue, read_task
from metarestore.project.resolving import resolve
from metarestore.project.task_files import TASK_FILE

__all__ = ["TASK_FILE", "Project", "arm_experiments", "catalogue", "read_experiment", "read_task", "resolve"]
