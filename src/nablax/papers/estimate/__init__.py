"""Papers on gradients by other roads than backpropagation."""
