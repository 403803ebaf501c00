"""Training of the networks that the nodes run. Needs accelerate; the nodes never import it."""
