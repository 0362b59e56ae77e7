"""Where a call's memory leads, without what it means."""
