"""Builders of data sets from art that other packages ship."""
