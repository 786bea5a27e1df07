"""How one session's upstream conversation is kept alive: asyncio, but no gRPC and no protobuf."""
