"""`orlop build` and what belongs to it: the command line, what a build is given, how it is shown, where it goes."""
