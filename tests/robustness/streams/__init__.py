"""Streams that are killed, starved and stopped, with brokers and destinations that are real."""
