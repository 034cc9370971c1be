"""The tabs of the page, built with Gradio."""
