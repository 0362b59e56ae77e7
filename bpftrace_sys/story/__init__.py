"""What calls mean: objects, attachments, feature probes, refusals."""
