"""`straightshot serve`: one model behind HTTP, for many clients at once."""
