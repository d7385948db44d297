"""Watching, pure: what was served against what was learned and what came true; alarms inside a budget of false ones.

Three things are kept apart: drift (inputs and predictions moved), performance (what came true, and what is expected to), anomalies (of data and service).
"""
