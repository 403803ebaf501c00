"""FaceStudio: a style and a face as one condition in the text's place."""
