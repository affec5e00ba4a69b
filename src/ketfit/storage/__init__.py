"""Files, folders, caches and logs on disk."""
