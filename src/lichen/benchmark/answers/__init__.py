"""Read code out of what models write, and write it in the forms other scorers read.

Nothing here runs, evaluates or imports model text; it is split into lines and parsed at most.
"""
