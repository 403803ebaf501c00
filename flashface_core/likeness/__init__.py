"""How alike the faces of pictures are to an identity."""
