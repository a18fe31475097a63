"""Ready-made parts for resources."""

from __future__ import annotations

from asyncelt.extract.incremental import Incremental as incremental  # noqa: N813 - the reference's name for it
from asyncelt.sources.channels import Channel as Channel, channel as channel
from asyncelt.sources.events import events as events
from asyncelt.sources.jetstream import NatsSource as NatsSource, nats as nats
from asyncelt.sources.kafka_topics import KafkaSource as KafkaSource, kafka as kafka
from asyncelt.sources.redis_streams import RedisStreamSource as RedisStreamSource, redis_stream as redis_stream
from asyncelt.sources.webhooks import Webhook as Webhook, WebhookRequest as WebhookRequest, webhook as webhook

__all__ = [
    "Channel",
    "KafkaSource",
    "NatsSource",
    "RedisStreamSource",
    "Webhook",
    "WebhookRequest",
    "channel",
    "events",
    "incremental",
    "kafka",
    "nats",
    "redis_stream",
    "webhook",
]
