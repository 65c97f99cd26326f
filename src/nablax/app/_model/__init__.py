"""The model of a table: states by a masked network, values by a field that is given states and other values."""
