"""Builders of data sets from images in other packages."""
