"""A learned vector field: is it a gradient, is it stiff, where does it rest?"""
