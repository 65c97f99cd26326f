"""What came of a run: the evidence, the verdict on it, and the page that shows both."""
