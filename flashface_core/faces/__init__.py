"""Photos in, levelled face crops out."""
