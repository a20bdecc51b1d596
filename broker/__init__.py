"""The one door to Kafka.

edges.py       what is asked of a broker: send, read, describe
cluster.py     addresses and security settings. Pure
connection.py  a real cluster (with failures.py the only ``import confluent_kafka``)
failures.py    what Kafka's client says went wrong, and the cure
memory.py      a broker in memory that keeps the same contract, for tests
"""
