"""The model, its processor and its configuration: what travels to the Hub."""
