"""Face Fusion on a MODEL."""
