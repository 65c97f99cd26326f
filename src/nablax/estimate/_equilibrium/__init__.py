"""Networks that settle: their equilibrium, and its gradient by nudging it or by its condition."""
