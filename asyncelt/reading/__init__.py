"""Reading back: datasets, lazy relations and an SQL client, over whatever session a destination has.

Describing a relation imports no SQL builder and does no I/O; a relation becomes SQL in a thread, when it is read.
"""
