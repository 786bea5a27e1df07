"""gRPC: what callers see. Servicers convert and delegate to sessions."""
