"""What the target teaches: its beam trees over histories, how they are kept, and batches of them."""
