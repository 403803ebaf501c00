"""Face Fusion: text and face in one softmax of cross-attention."""
