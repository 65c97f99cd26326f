"""A gradient kept off what earlier tasks need."""
