"""The command ``evaluate``: lip-synced videos measured as the field does."""
