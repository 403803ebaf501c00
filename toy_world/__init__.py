"""Drawn people, and what is said of them: portraits made by rule, for the tiny models."""
