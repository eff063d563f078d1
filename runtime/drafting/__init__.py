"""Who drafts: by a model, by a pool, or both."""
