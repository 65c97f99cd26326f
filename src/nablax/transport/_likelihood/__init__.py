"""How likely a point is under a transport."""
