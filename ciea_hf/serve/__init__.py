"""HTTP service of a model and an index, for the clients of OpenAI, Voyage and Cohere.

`create_app` builds the application and `run` serves it. Every request takes one path: its shape is parsed into inputs
(`shapes`), the inputs are checked and decoded (`inputs`), then embedded in batches with those of other requests
(`engine` over `batching`).
"""
