"""The fleet's stream: batches of many hosts out of Kafka, joined per host, rows into ClickHouse.

partition.py    one partition's hosts, and up to which offset all is safe. Pure
storing.py      the thread that puts rows into the store
state_log.py    the hosts' states in a compacted topic
worker.py       rows, then states, then offsets
counts.py       what it counts
application.py  Faust: who gets which partition, and what lies in it
"""
