"""FaceStudio on a MODEL."""
