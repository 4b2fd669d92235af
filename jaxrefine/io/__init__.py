"""Reading and writing of files: MRC images, particle tables, STAR. No arithmetic."""
