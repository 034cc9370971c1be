"""Charts that compare trainings and sync reports."""
