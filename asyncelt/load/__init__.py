"""The load room: the contract with destinations, the registry that finds them, and the commit."""
