"""The storage room: load packages, job files, state documents and locks on the local disk."""
