"""Three brokers: a write with two copies is acked while one of them is dead, and read when it is back."""

from __future__ import annotations

import pytest
from kafka import KafkaProducer

from stream.clients.connection import administration
from stream.clients.reading import read_to_end
from stream.demo.broker import answers
from stream.demo.broker_cluster import LocalCluster
from tests.running import wait_until


@pytest.mark.timeout(180)
def test_one_of_three_brokers_may_die() -> None:
    with LocalCluster(settings={"broker.session.timeout.ms": "3000"}) as cluster:
        with administration(cluster.bootstrap) as admin:
            admin.create_topics({"kept": {"num_partitions": 3, "replication_factor": 3}})
            admin.wait_for_topics(["kept"])
        cluster.kill(2)
        assert cluster.running == [1, 3]
        assert not answers(cluster.addresses[2])
        producer = KafkaProducer(bootstrap_servers=cluster.bootstrap.split(","), acks="all", retries=20)
        for partition in range(3):
            producer.send("kept", value=b"%d" % partition, partition=partition).get(60)
        producer.close()
        cluster.restart(2)
        assert cluster.running == [1, 2, 3]

        def all_in_sync() -> bool:
            with administration(cluster.bootstrap) as admin:
                (topic,) = admin.describe_topics(["kept"])
            return all(len(partition["isr_nodes"]) == 3 for partition in topic["partitions"])

        wait_until(all_in_sync, 60.0, 0.5)
        records = read_to_end(cluster.bootstrap, "kept")
        assert sorted(record.value for record in records) == [b"0", b"1", b"2"]
