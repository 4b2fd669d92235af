"""Files: MRC images and the particle table. No arithmetic."""
