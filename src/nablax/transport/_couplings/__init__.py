"""Which noise goes with which datum."""
