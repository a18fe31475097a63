"""The mock cluster of librdkafka, a stand-in for Kafka brokers: ``python mock_kafka.py`` prints its address.

It knows offsets that are out of range, and deletes the oldest messages of a partition that has 5 MiB; its groups have one
member. It ends with its standard input.
"""

from __future__ import annotations

import sys

from confluent_kafka import Producer

if __name__ == "__main__":
    cluster = Producer({"bootstrap.servers": "nobody", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = cluster.list_topics(timeout=20).brokers.values()
    print(",".join(f"{one.host}:{one.port}" for one in brokers), flush=True)
    sys.stdin.read()
