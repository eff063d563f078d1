"""How much to draft: by hand, or by what calls cost and drafts are worth."""
