"""`orlop compose`: projects of several containers. `entry` is the way in; frontends.compose knows what a project is."""
