"""Media files in and out, by PyAV."""
