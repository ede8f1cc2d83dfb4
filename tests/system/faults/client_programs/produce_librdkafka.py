"""Sends events as an ordinary librdkafka client: produce_librdkafka.py BOOTSTRAP TOPIC CODEC USER COUNT."""

import json
import sys
import time

import confluent_kafka  # type: ignore[import-not-found]

bootstrap, topic, codec, user_prefix, count = sys.argv[1:]
producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 50})
for number in range(int(count)):
    user_id = f"{user_prefix}-{number % 6}"
    event = {"user_id": user_id, "item_id": f"item-{number}", "timestamp": time.time()}
    producer.produce(topic, key=user_id, value=json.dumps(event))
sys.exit(producer.flush(30))
