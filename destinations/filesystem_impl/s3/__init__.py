"""Datasets of files in a bucket. Only `config` may be imported on the event loop; the rest brings the driver."""
