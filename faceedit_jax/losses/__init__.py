"""Losses as plain functions; per example wherever that has a meaning."""
