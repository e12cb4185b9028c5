"""Files that may be far away or fail for a while."""
