"""Model folders: files, schema, card and the Hub."""
