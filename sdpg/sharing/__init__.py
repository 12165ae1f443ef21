"""What leaves the machine, or comes from another: a run's checkpoint for the hub, results as one file for an archive."""
