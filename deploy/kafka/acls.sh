#!/bin/sh
# What each of the fleet's users may do in Kafka, for brokers with an authorizer:
#
#     authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
#
# Usage: deploy/kafka/acls.sh kafka-1.example:9093 admin.properties
#
# admin.properties is how an administrator gets in, as Kafka's own tools take it. Running it again changes nothing.
# Other names: PRODUCER, WORKER, OPERATOR (such as User:web) and GROUP in the environment, and PREFIX, as the setting kafka_prefix;
# KAFKA_ACLS is Kafka's kafka-acls.sh.
set -eu
brokers=$1
admin=$2
acls=${KAFKA_ACLS:-kafka-acls.sh}
producer=${PRODUCER:-User:tasktrail-producer}
worker=${WORKER:-User:tasktrail-worker}
operator=${OPERATOR:-User:tasktrail-operator}
prefix=${PREFIX:-}
group=$prefix${GROUP:-tasktrail}

allow() {
    "$acls" --bootstrap-server "$brokers" --command-config "$admin" --add "$@" >/dev/null
}

# A host writes batches and can read nobody's, its own included. The right to write a topic includes that to be idempotent.
allow --allow-principal "$producer" --topic "${prefix}tasktrail.events" --operation Write --operation Describe

# A worker reads batches and cannot write any; it keeps states, puts aside what nobody can read, and is of its group.
allow --allow-principal "$worker" --topic "${prefix}tasktrail.events" --operation Read --operation Describe
allow --allow-principal "$worker" --topic "${prefix}tasktrail.state" --operation Read --operation Write --operation Describe
allow --allow-principal "$worker" --topic "${prefix}tasktrail.deadletter" --operation Write --operation Describe
allow --allow-principal "$worker" --group "$group" --operation Read --operation Describe
# Reading states joins no group, but Kafka's client asks for one's coordinator by this name.
allow --allow-principal "$worker" --group "${prefix}tasktrail-reader" --operation Describe

# Whoever runs `tasktrail topics` makes and describes topics, and sees how far the group is; no batch.
allow --allow-principal "$operator" --topic "${prefix}tasktrail." --resource-pattern-type prefixed \
    --operation Create --operation Describe --operation DescribeConfigs --operation AlterConfigs
allow --allow-principal "$operator" --group "$group" --operation Describe
