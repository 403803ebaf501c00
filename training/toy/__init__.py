"""The toy world: procedurally drawn portraits on which identity is known exactly."""
