"""Test doubles that speak real HTTP."""
