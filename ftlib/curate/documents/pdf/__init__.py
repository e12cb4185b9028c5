"""PDF files as blocks: words → lines → columns → blocks, in a process of its own with bounds (`sandbox`)."""
