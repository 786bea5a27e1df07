"""Messages of the contract to commands and events, and back. Pure, and the only place that knows both."""
