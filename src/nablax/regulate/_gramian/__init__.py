"""Inner products of many gradients, without the gradients."""
