"""Rules for several players, each with a loss of their own, one of whom may ascend what the other descends."""
