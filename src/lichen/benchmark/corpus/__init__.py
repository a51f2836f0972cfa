"""Where questions come from: JSON Lines files and git repositories, both read as hostile input."""
