"""Whole-process times of Orlop and its peers, taken in turn on one machine in one run: `./dev bench`.

A figure here is what a person waits for: from starting the command to its end, exit status checked. Absolute times
belong to the machine; what travels is the ratio to a peer measured in the same minute, so commands are run A B C A B C
and ratios are taken within a round before they are summed up.
"""
