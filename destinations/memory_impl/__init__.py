"""The memory destination: the contract of `asyncelt.load.protocol` in the plainest code, and for tests."""
