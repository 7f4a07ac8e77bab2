"""Fit under a parameter server strategy, which changes the whole process: prints the error."""

import sys

import tensorflow as tf
from workflows import compiled, data, graph

server, worker = sys.argv[1:]
cluster = tf.train.ClusterSpec({"ps": [server], "worker": [worker]})
servers = [tf.distribute.Server(cluster, job_name=job, task_index=0) for job in ("ps", "worker")]
resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")
with tf.distribute.ParameterServerStrategy(resolver).scope():
    model = compiled(graph())
try:
    model.fit(*data(), verbose=0)
except ValueError as error:
    print(error)
