"""Helpers shared by the scripts in hack/. Only Python 3.11's standard library."""
