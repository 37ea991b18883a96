"""Similar posts with well-received replies, for the example slot of the prompts."""
