"""What comes out of a build: which places were asked for, in which form an image goes there, and the way there."""
