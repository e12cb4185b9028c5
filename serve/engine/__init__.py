"""What computes answers: one model, its adapters, the batch that all requests share."""
