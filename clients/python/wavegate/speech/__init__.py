"""The contract, one package per version: `from wavegate.speech import v1`."""
