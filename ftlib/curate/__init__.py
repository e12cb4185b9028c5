"""From raw documents and rows to data worth training on."""
