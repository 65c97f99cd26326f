"""Data, networks and planted problems that several papers share."""
