"""What does not fit one machine, or one process: large catalogs, large models, many machines."""
