"""Photographs of people to what the trainer reads: prepare, then encode, then dataset."""
