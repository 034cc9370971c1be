"""What a running command says: messages, and how far its work has come."""
