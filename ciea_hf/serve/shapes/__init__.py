"""Routes in the shapes of existing clients, one module each, and our own search."""
