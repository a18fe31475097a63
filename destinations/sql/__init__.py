"""SQL text that several destinations share: tables and columns, merging, the system tables.

Every function is pure: schema values in, SQL text for a dialect out. Names enter as quoted identifiers and
values as parameters, so nothing has to be escaped by hand.
"""
