"""What this machine can do for a user, feature by feature, why not more, and the next step. No engine is needed.

facts     looks: one record, nothing is decided
checks    decides: pure functions from facts to findings
fixes     does what findings propose, for root
"""
