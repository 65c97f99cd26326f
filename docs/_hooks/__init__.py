"""What the site makes for itself when it is built: formulas, the reference, the pages of papers."""
