"""Dagster's and MLflow's pages on loopback, behind a guard."""
