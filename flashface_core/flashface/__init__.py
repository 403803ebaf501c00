"""FlashFace's own: checkpoint, ReferenceNet, reference attention, guidance."""
