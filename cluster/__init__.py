"""Runs on many machines, by Ray: the work of one process, done partition by partition on the nodes of a cluster."""
