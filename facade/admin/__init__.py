"""What admins may do over the public API: everybody's accounts and sessions."""
