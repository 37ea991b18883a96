"""What stands between a person in crisis and a model: triage before generation, a guard after it.

The rules are YAML in ``rules/``, each with an id, a description, a source and examples. No
clinician has reviewed them; see docs/safety.md.
"""
