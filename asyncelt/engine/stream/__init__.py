"""Streams: packages that are rolled while their sources go on."""
