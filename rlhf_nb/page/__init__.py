"""What the pages of the book say, made from what the run has measured."""
