"""How a generated face is put into a frame."""
