"""Ours and the peer in turn, the same work, each in a process of its own."""
