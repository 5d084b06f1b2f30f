"""What a record costs, measured: the project against the tightest loop one would write by hand, and against others.

`python -m bench` runs it; `README.md` says how the figures are made and what they came to.
"""
