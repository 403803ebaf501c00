"""FlashFace and the training-free reference on a MODEL."""
