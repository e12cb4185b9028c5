"""Inside a Ray cluster: Ray is started or joined, machines are watched and shared, secrets are kept."""
