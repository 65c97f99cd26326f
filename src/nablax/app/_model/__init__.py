"""The model of a table: states by a masked network, values by regression and by a field of what it leaves."""
