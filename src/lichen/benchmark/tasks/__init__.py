"""benchmark/tasks."""
