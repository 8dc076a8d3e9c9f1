"""Sub-pixel registration of the LR and HR images of real pairs, matching of exposure, and masks of what differs."""
