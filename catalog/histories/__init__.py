"""Item histories from files of every format that is read, and datasets of them."""
