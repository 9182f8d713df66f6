"""What the engine adds to the supervision that goes on without it: orders to monitors, what they report, the boot.

orders     what a monitor is to do at the end of a run
notices    being told when a monitor has written something
trims      telling what was removed of logs
boot       which containers start by themselves when an engine opens, and in which order
"""
