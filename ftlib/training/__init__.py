"""One trial: trained, evaluated and written down, without Ray."""
