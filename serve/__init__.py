"""The Ray Serve application: from the registry to an OpenAI-compatible endpoint.

    app (build, start, stop)    engines (how each is deployed)    options (what may be told)
    connection (before anybody is known) → http (routes) → api (a request's way) → engine (queue, deadlines)
    → batch (forward passes) → rows (keys and values)
    guard catalog books logs metrics: who may, what a name means, what is written down
    requests (shapes) templates protocol sequence sampling text: from a request to tokens, and back to text

Imports ftlib, never the reverse.
"""
