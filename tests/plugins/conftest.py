"""The package in `package/` is tested where it is installed, not where it lies."""

collect_ignore = ["package"]
