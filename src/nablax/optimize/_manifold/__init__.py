"""Rules whose steps follow the geometry of where parameters live, or of a potential of theirs."""
