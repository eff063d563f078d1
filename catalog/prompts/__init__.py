"""Prompts: from options and a chat template to token ids."""
