"""FlashFace without the nodes: photo, identity, features, patched MODEL (see CONTRIBUTING.md)."""
