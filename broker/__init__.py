"""The one door to Kafka.

edges.py       what is asked of a broker: send, read, describe
cluster.py     addresses and security settings. Pure
connection.py  a real cluster (the only ``import confluent_kafka``)
memory.py      a broker in memory that keeps the same contract, for tests
"""
