"""Rollouts: who takes part, when a stage opens, when all of it stops."""
